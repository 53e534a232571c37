"""``POST /v1/completions``: text that goes on, or that fills a hole."""

from __future__ import annotations

from diffusion_core.callers import Scope
from diffusion_core.errors import InvalidRequest
from diffusion_core.net.openai.bodies import MAX_CHOICES, CompletionsBody, make_sampling
from diffusion_core.net.openai.choices import answer_all
from diffusion_core.net.openai.fim_markers import FilledIn, take_apart
from diffusion_core.net.openai.json_exchange import DONE, JsonExchange, ignored_header
from diffusion_core.net.openai.replies import (
    Completion,
    CompletionChoice,
    Finish,
    Usage,
    count_usage,
    fingerprint,
    finish_of,
)
from diffusion_core.net.openai.service import Service, draw_seed, now
from diffusion_core.requests import CompletionRequest, EngineClient, FinishReason, Result, WarmRequest


async def complete(service: Service, exchange: JsonExchange) -> None:
    """Answer one request."""
    caller = exchange.caller(Scope.COMPLETE)
    body = await exchange.read_json(CompletionsBody)
    num_choices = body.n or 1
    wanted, name = await service.resolve(body.model, "complete")
    requests = make_requests(body, wanted, exchange.request_id)
    engine = service.engine_for(caller)
    answer = _Answer(exchange, body, num_choices, name)
    if body.max_tokens == 0:
        await exchange.race_client(answer.warm(engine, requests))
    elif body.stream:
        await exchange.race_client(answer.stream(engine, requests))
        await exchange.end()
    else:
        results = await exchange.race_client(answer_all(engine, requests))
        await answer.send_whole(results)


def make_requests(body: CompletionsBody, model: str, request_id: str) -> list[CompletionRequest]:
    """One request for each choice: those of the first prompt, those of the second, and so on.

    Raises:
        InvalidRequest: more choices than a request may have.
    """
    prompts = body.prompt if isinstance(body.prompt, list) else [body.prompt or ""]
    count = body.n or 1
    if len(prompts) * count > MAX_CHOICES:
        raise InvalidRequest(f"{len(prompts)} prompts with n of {count}: at most {MAX_CHOICES} answers at once")
    seed = draw_seed() if body.seed is None else body.seed
    requests: list[CompletionRequest] = []
    for prompt in prompts:
        parts = FilledIn(prompt, body.suffix) if body.suffix else take_apart(prompt) or FilledIn(prompt, "")
        requests += [
            CompletionRequest(
                prefix=parts.prefix,
                suffix=parts.suffix,
                path=parts.path,
                repository=parts.repository,
                snippets=parts.snippets,
                stop_at_scope=False,
                max_tokens=body.max_tokens or 0,
                model=model,
                sampling=make_sampling(body.temperature, body.top_p, seed + number),
                stop=body.stops,
                id=f"{request_id}-{len(requests) + number}",
            )
            for number in range(count)
        ]
    return requests


class _Answer:
    """One answer in the making."""

    def __init__(self, exchange: JsonExchange, body: CompletionsBody, num_choices: int, model: str) -> None:
        self._exchange, self._body, self._num_choices = exchange, body, num_choices
        self._created = now()
        self._model = model
        self._headers = ignored_header(body.ignored)

    async def send_whole(self, results: list[Result]) -> None:
        """The answer in one piece."""
        choices = [_choice(index, each.text, finish_of(each)) for index, each in enumerate(results)]
        self._model = results[0].model
        usage = count_usage(results, self._num_choices)
        await self._exchange.answer_json(self._reply(choices, usage, results[0].notice), headers=self._headers)

    async def stream(self, engine: EngineClient, requests: list[CompletionRequest]) -> None:
        """Pieces of text as they are settled, then the reasons, then what was used."""

        async def emit(index: int, text: str) -> None:
            await self._exchange.begin_events(self._headers)
            await self._exchange.send_event(self._reply([_choice(index, text, None)]))

        await self._end_stream(await answer_all(engine, requests, emit))

    async def _end_stream(self, results: list[Result]) -> None:
        """What follows the text: the reasons, what was used, and the end."""
        await self._exchange.begin_events(self._headers)
        self._model = results[0].model
        for index, result in enumerate(results):
            await self._exchange.send_event(self._reply([_choice(index, "", finish_of(result))], notice=result.notice))
        if self._body.stream_options and self._body.stream_options.include_usage:
            await self._exchange.send_event(self._reply([], count_usage(results, self._num_choices)))
        await self._exchange.send_event(DONE)

    async def warm(self, engine: EngineClient, requests: list[CompletionRequest]) -> None:
        """Compute the prompts and say that there is no text."""
        for request in requests[:: self._num_choices]:
            await engine.warm(WarmRequest(completion=request))
        nothing = [
            Result(id=each.id, text="", finish_reason=FinishReason.LENGTH, model=self._model) for each in requests
        ]
        if not self._body.stream:
            await self.send_whole(nothing)
            return
        await self._end_stream(nothing)
        await self._exchange.end()

    def _reply(self, choices: list[CompletionChoice], usage: Usage | None = None, notice: str = "") -> Completion:
        reply = Completion(
            id=f"cmpl-{self._exchange.request_id}",
            object="text_completion",
            created=self._created,
            model=self._model,
            system_fingerprint=fingerprint(),
            choices=choices,
        )
        if usage is not None:
            reply.usage = usage
        if notice:
            reply.notice = notice
        return reply


def _choice(index: int, text: str, finish: Finish | None) -> CompletionChoice:
    return CompletionChoice(index=index, text=text, logprobs=None, finish_reason=finish)
