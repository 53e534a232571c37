"""llama-server's ``POST /infill``, for the editor plugins that know no other server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from diffusion_core.callers import Scope
from diffusion_core.errors import ContextTooLong
from diffusion_core.net.openai.bodies import InfillBody, make_sampling
from diffusion_core.net.openai.choices import Emit, answer_all
from diffusion_core.net.openai.json_exchange import JsonExchange, ignored_header
from diffusion_core.net.openai.replies import Infill, InfillPiece, time_of
from diffusion_core.net.openai.service import Service, draw_seed
from diffusion_core.requests import CompletionRequest, EngineClient, FinishReason, Result, Snippet, WarmRequest

_STOP_TYPES: dict[FinishReason, Literal["limit", "word"]] = {
    FinishReason.LENGTH: "limit",
    FinishReason.DEADLINE: "limit",
    FinishReason.TEXT: "word",
}


async def infill(service: Service, exchange: JsonExchange) -> None:
    """Answer one request."""
    caller = exchange.caller(Scope.COMPLETE)
    body = await exchange.read_json(InfillBody)
    wanted, name = await service.resolve(body.model, "complete")
    requests = make_requests(body, wanted, exchange.request_id)
    engine = service.engine_for(caller)
    headers = ignored_header(body.ignored)

    async def make(emit: Emit | None = None) -> list[Result]:
        if body.n_predict != 0:
            return await _answer(engine, requests, emit)
        return [replace(await _warm(engine, requests[0]), model=name)] * len(requests)

    if not body.stream:
        results = await exchange.race_client(make())
        replies = [_whole(index, each) for index, each in enumerate(results)]
        await exchange.answer_json(_as_json(replies, body), headers=headers)
        return

    async def emit(index: int, text: str) -> None:
        await exchange.begin_events(headers)
        await exchange.send_event(InfillPiece(index=index, content=text, stop=False))

    async def stream() -> None:
        results = await make(emit)
        await exchange.begin_events(headers)
        for index, result in enumerate(results):
            # As llama-server has it, the last event of an answer repeats none of its text.
            await exchange.send_event(_whole(index, replace(result, text="")))

    await exchange.race_client(stream())
    await exchange.end()


def make_requests(body: InfillBody, model: str, request_id: str) -> list[CompletionRequest]:
    """One request for each answer."""
    seed = draw_seed() if body.seed in (None, -1) else body.seed
    assert seed is not None
    snippets = tuple(Snippet(path=each.filename or "tmp", text=each.text) for each in body.input_extra or ())
    return [
        CompletionRequest(
            prefix=body.input_prefix + (body.prompt or ""),
            suffix=body.input_suffix,
            snippets=snippets,
            stop_at_scope=False,
            max_tokens=max(body.n_predict or 0, 0),
            model=model,
            sampling=make_sampling(body.temperature, body.top_p, seed + number),
            stop=tuple(body.stop or ()),
            min_indent=body.n_indent or 0,
            line_ms=body.t_max_predict_ms or 0,
            id=f"{request_id}-{number}",
        )
        for number in range(body.n_cmpl or 1)
    ]


async def _answer(
    engine: EngineClient, requests: Sequence[CompletionRequest], emit: Emit | None = None
) -> list[Result]:
    """The answers. As in a llama-server, of other files only the last ones are shown where not all fit."""
    while True:
        try:
            return await answer_all(engine, requests, emit)
        except ContextTooLong:
            if not requests[0].snippets:
                raise
            requests = [_with_fewer_snippets(each) for each in requests]


async def _warm(engine: EngineClient, request: CompletionRequest) -> Result:
    while True:
        try:
            await engine.warm(WarmRequest(completion=request))
            return Result(id=request.id, text="", finish_reason=FinishReason.LENGTH, model=request.model)
        except ContextTooLong:
            if not request.snippets:
                raise
            request = _with_fewer_snippets(request)


def _with_fewer_snippets(request: CompletionRequest) -> CompletionRequest:
    return replace(request, snippets=request.snippets[(len(request.snippets) + 1) // 2 :])


def _whole(index: int, result: Result) -> Infill:
    reply = Infill(
        index=index,
        content=result.text,
        stop=True,
        model=result.model,
        id_slot=0,
        tokens_predicted=result.num_tokens,
        tokens_evaluated=result.num_prompt_tokens,
        tokens_cached=result.num_prompt_tokens + result.num_tokens,
        truncated="context was cut" in result.notice,
        has_new_line="\n" in result.text,
        stop_type=_STOP_TYPES.get(result.finish_reason, "eos"),
        timings=time_of(result),
    )
    if result.notice:
        reply.notice = result.notice
    return reply


def _as_json(replies: Sequence[Infill], body: InfillBody) -> bytes:
    """The fields asked for; one of them inside another comes out under its whole name."""
    made: list[dict[str, Any]] = []
    for reply in replies:
        whole = reply.model_dump(exclude_unset=True)
        if not body.response_fields:
            made.append(whole)
            continue
        found = {name: _find(whole, name) for name in body.response_fields}
        made.append({name: value for name, value in found.items() if value is not None})
    # Without spaces: llama.vim looks for `"content":"` before it reads an answer.
    return json.dumps(made if (body.n_cmpl or 1) > 1 else made[0], separators=(",", ":")).encode()


def _find(whole: dict[str, Any], name: str) -> Any:
    value: Any = whole
    for part in name.split("/"):
        value = value.get(part) if isinstance(value, dict) else None
    return value
