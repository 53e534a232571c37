"""What the page asks: who it speaks for, and answers with everything that led to them. JSON, since browsers ask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, TypeVar

from diffusion_core.callers import Scope, engine_for
from diffusion_core.errors import EngineError, UnmaskError
from diffusion_core.net.exchange import REQUEST_ID_KEY, Exchange, retry_headers
from diffusion_core.net.protocol import WireError, structure_json
from diffusion_core.requests import CompletionRequest, EditRequest, EngineClient, Result
from diffusion_core.trace import TraceFrame, TraceToken, watch

WATCH_PATHS = frozenset({"/v1/watch/complete", "/v1/watch/edit", "/v1/session"})
_LINES = "application/x-ndjson"
_MAX_DIGITS = 4

R = TypeVar("R", CompletionRequest, EditRequest)


class JsonLines(Exchange):
    """As :class:`Exchange`, in JSON; a stream is a sequence of lines, each an object with its kind in ``t``."""

    content_type = "application/json"

    async def read_json(self, expected: type[R]) -> R:
        """The message in the body.

        Raises:
            InvalidRequest, ContextTooLong, ClientGoneError: as :meth:`Exchange.read`.
        """
        request = structure_json(await self.read_body(), expected)
        self._scope[REQUEST_ID_KEY] = request.id
        return request

    async def answer_json(self, value: Mapping[str, Any]) -> None:
        """Send the only answer."""
        await self.send_whole(_as_json(value))

    async def send_line(self, value: Mapping[str, Any]) -> None:
        """Send one line of a stream."""
        if not self.has_begun:
            # Proxies must not keep back what is streamed.
            await self.begin(200, [(b"x-accel-buffering", b"no")], content_type=_LINES)
        await self.send_piece(_as_json(value) + b"\n")

    async def fail(self, error: UnmaskError, status: int = 0) -> None:
        """Send an error: as the answer, or as the last line of a stream."""
        line = {"t": "error", **asdict(WireError.of(error))}
        if self.has_begun:
            await self.send_line(line)
            await self.end()
        else:
            status = status or error.http_status
            await self.send_whole(_as_json(line), status, retry_headers(status, error))


class WatchRoutes:
    """``POST /v1/watch/complete`` and ``/v1/watch/edit`` take the fields of a request; ``GET /v1/session``."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine

    async def session(self, exchange: JsonLines) -> None:
        """Who asks, what the token allows, and the state of the engine."""
        caller, health = exchange.caller(), await self._engine.health()
        await exchange.answer_json(
            {
                "user": caller.user,
                "scopes": sorted(caller.scopes),
                "status": health.status,
                "version": health.version,
                "device": health.device,
                "dtype": health.dtype,
                "models": [asdict(model) for model in health.models],
                "notices": list(health.notices),
            }
        )

    async def complete(self, exchange: JsonLines) -> None:
        """Stream what each forward of a completion did, then its result."""
        await self._watch(exchange, CompletionRequest, Scope.COMPLETE)

    async def edit(self, exchange: JsonLines) -> None:
        """Stream what each forward of an edit did, then its result."""
        await self._watch(exchange, EditRequest, Scope.EDIT)

    async def _watch(self, exchange: JsonLines, expected: type[R], needed: Scope) -> None:
        engine = engine_for(self._engine, exchange.caller(needed))
        request = await exchange.read_json(expected)
        await exchange.race_client(_stream(engine, request, exchange))
        await exchange.end()


async def _stream(engine: EngineClient, request: CompletionRequest | EditRequest, exchange: JsonLines) -> None:
    # Also when the client left: the generator's own clean-up stops the engine's work.
    async with aclosing(watch(engine, request)) as items:
        async for item in items:
            if isinstance(item, Result):
                rate = item.tokens_per_forward
                return await exchange.send_line({"t": "result", **asdict(item), "tokens_per_forward": rate})
            await exchange.send_line(_describe(item))
    raise EngineError("the engine ended without a result")


def _describe(frame: TraceFrame) -> dict[str, Any]:
    """A frame as a line; what is empty is left out."""
    fields = {
        "ms": round(frame.ms, 2),
        "num_prefilled": frame.num_prefilled,
        "settled": [_describe_token(token) for token in frame.settled],
        "num_accepted": frame.num_accepted,
        "rejected": [_describe_token(token) for token in frame.rejected],
        "source": frame.source,
        "slots": [{**_describe_token(slot.token), "is_masked": slot.is_masked} for slot in frame.slots],
        "expected": frame.expected,
    }
    return {"t": "frame", **{name: value for name, value in fields.items() if value}}


def _describe_token(token: TraceToken) -> dict[str, Any]:
    sure = token.confidence
    described: dict[str, Any] = {"text": token.text, "p": sure if sure is None else round(sure, _MAX_DIGITS)}
    return {**described, "is_end": True} if token.is_end else described


def _as_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
