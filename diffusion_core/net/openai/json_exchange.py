"""An HTTP request with a JSON body, answered by JSON or by server-sent events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from diffusion_core.errors import UnmaskError
from diffusion_core.net.exchange import Exchange
from diffusion_core.net.observing.observation import note_error
from diffusion_core.net.openai.failures import describe, explain, retry_headers, status_of

if TYPE_CHECKING:
    # Pydantic takes a quarter of a second, which a server that nobody asks for JSON has better use for.
    from pydantic import BaseModel

    from diffusion_core.net.openai.bodies import Body

_EVENTS = "text/event-stream; charset=utf-8"
DONE = b"[DONE]"  # the last event of OpenAI's streams
B = TypeVar("B", bound="Body")


class JsonExchange(Exchange):
    """As :class:`Exchange`, for clients that are not Unmask's own."""

    content_type = "application/json"

    async def read_json(self, expected: type[B]) -> B:
        """The body.

        Raises:
            WrongField: the body is no JSON, or a field is unknown, of the wrong type or not supported.
            InvalidRequest, ContextTooLong, ClientGoneError: as :meth:`read_body`.
        """
        from pydantic import ValidationError

        body = await self.read_body()
        try:
            return expected.model_validate_json(body)
        except ValidationError as error:
            raise explain(error, expected.unsupported) from None

    async def answer_json(
        self, reply: BaseModel | bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """Send the only answer."""
        body = reply if isinstance(reply, bytes) else _as_json(reply)
        await self.send_whole(body, status, headers)

    async def begin_events(self, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Send the status line of a stream, once."""
        if not self.has_begun:
            # Proxies must not keep what is streamed.
            await self.begin(200, [(b"x-accel-buffering", b"no"), *headers], content_type=_EVENTS)

    async def send_event(self, event: BaseModel | bytes) -> None:
        """Send one event."""
        data = event if isinstance(event, bytes) else _as_json(event)
        await self.send_piece(b"data: " + data + b"\n\n")

    async def fail(self, error: UnmaskError, status: int = 0) -> None:
        """Send an error: as the answer, or as the last event of a stream."""
        note_error(error.code)
        if self.has_begun:
            await self.send_event(json.dumps(describe(error)).encode())
            await self.end()
        else:
            body = json.dumps(describe(error)).encode()
            await self.answer_json(body, status or status_of(error), tuple(retry_headers(error)))


def _as_json(reply: BaseModel) -> bytes:
    return reply.model_dump_json(exclude_unset=True).encode()


def ignored_header(names: Sequence[str]) -> tuple[tuple[bytes, bytes], ...]:
    """The header that says which fields of a request made no difference though they should have."""
    return ((b"unmask-ignored", ", ".join(names).encode()),) if names else ()
