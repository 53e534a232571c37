"""``POST /v1/chat/completions``: what the model for edits says next in a conversation."""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_core.callers import Scope
from diffusion_core.chat import ChatRequest, Role, Turn
from diffusion_core.net.openai.bodies import ChatBody, join_content, make_sampling
from diffusion_core.net.openai.choices import answer_all
from diffusion_core.net.openai.json_exchange import DONE, JsonExchange, ignored_header
from diffusion_core.net.openai.replies import (
    AnswerMessage,
    Chat,
    ChatChoice,
    ChatChunk,
    Delta,
    DeltaChoice,
    Finish,
    Usage,
    count_usage,
    fingerprint,
    finish_of,
)
from diffusion_core.net.openai.service import Service, draw_seed, now
from diffusion_core.requests import EngineClient, Result

_ROLES = {"developer": Role.SYSTEM}


async def chat(service: Service, exchange: JsonExchange) -> None:
    """Answer one request."""
    caller = exchange.caller(Scope.EDIT)
    body = await exchange.read_json(ChatBody)
    wanted, name = await service.resolve(body.model, "edit")
    requests = make_requests(body, wanted, exchange.request_id)
    engine = service.engine_for(caller)
    if body.stream:
        await exchange.race_client(_Stream(exchange, body, len(requests), name).run(engine, requests))
        await exchange.end()
        return
    results = await exchange.race_client(answer_all(engine, requests))
    await exchange.answer_json(_whole(exchange.request_id, results), headers=ignored_header(body.ignored))


def make_requests(body: ChatBody, model: str, request_id: str) -> list[ChatRequest]:
    """One request for each choice."""
    turns = tuple(
        Turn(role=_ROLES.get(message.role) or Role(message.role), text=join_content(message.content))
        for message in body.messages
    )
    seed = draw_seed() if body.seed is None else body.seed
    max_tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return [
        ChatRequest(
            turns=turns,
            prediction=join_content(body.prediction.content) if body.prediction else "",
            stop=body.stops,
            max_tokens=max_tokens or 0,
            model=model,
            sampling=make_sampling(body.temperature, body.top_p, seed + number),
            id=f"{request_id}-{number}",
        )
        for number in range(body.n or 1)
    ]


def _whole(request_id: str, results: Sequence[Result]) -> Chat:
    reply = Chat(
        id=f"chatcmpl-{request_id}",
        object="chat.completion",
        created=now(),
        model=results[0].model,
        system_fingerprint=fingerprint(),
        choices=[
            ChatChoice(
                index=index,
                message=AnswerMessage(role="assistant", content=each.text, refusal=None),
                logprobs=None,
                finish_reason=finish_of(each),
            )
            for index, each in enumerate(results)
        ],
        usage=count_usage(results, len(results)),
    )
    if results[0].notice:
        reply.notice = results[0].notice
    return reply


class _Stream:
    """One conversation's answers, piece by piece."""

    def __init__(self, exchange: JsonExchange, body: ChatBody, num_choices: int, model: str) -> None:
        self._exchange, self._body, self._num_choices = exchange, body, num_choices
        self._created, self._model = now(), model

    async def run(self, engine: EngineClient, requests: Sequence[ChatRequest]) -> None:
        """Pieces of text as they are settled, then the reasons, then what was used."""

        async def emit(index: int, text: str) -> None:
            await self._begin()
            await self._send(index, Delta(content=text))

        results = await answer_all(engine, requests, emit)
        await self._begin()
        self._model = results[0].model
        for index, result in enumerate(results):
            await self._send(index, Delta(), finish_of(result), result.notice)
        if self._body.stream_options and self._body.stream_options.include_usage:
            await self._exchange.send_event(self._chunk([], count_usage(results, self._num_choices)))
        await self._exchange.send_event(DONE)

    async def _begin(self) -> None:
        """The status line and who speaks: at the first text, so that an error before it has a status of its own."""
        if self._exchange.has_begun:
            return
        await self._exchange.begin_events(ignored_header(self._body.ignored))
        for index in range(self._num_choices):
            await self._send(index, Delta(role="assistant", content=""))

    async def _send(self, index: int, delta: Delta, finish: Finish | None = None, notice: str = "") -> None:
        choice = DeltaChoice(index=index, delta=delta, logprobs=None, finish_reason=finish)
        await self._exchange.send_event(self._chunk([choice], notice=notice))

    def _chunk(self, choices: list[DeltaChoice], usage: Usage | None = None, notice: str = "") -> ChatChunk:
        chunk = ChatChunk(
            id=f"chatcmpl-{self._exchange.request_id}",
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            system_fingerprint=fingerprint(),
            choices=choices,
        )
        if usage is not None:
            chunk.usage = usage
        if notice:
            chunk.notice = notice
        return chunk
