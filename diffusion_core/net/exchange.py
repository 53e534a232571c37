"""One HTTP request and its answer, as ASGI messages.

Starlette's own request and response classes are not enough here: a plain handler is not cancelled when the client
leaves, and a body is read whole before anything can refuse it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from diffusion_core.callers import Caller
from diffusion_core.callers import Scope as Permission
from diffusion_core.errors import ContextTooLong, Forbidden, InvalidRequest, UnmaskError
from diffusion_core.net.observing.observation import note_error
from diffusion_core.net.protocol import CONTENT_TYPE, M, Message, WireError, decode, encode

BODY_TIMEOUT_S = 60.0
REQUEST_ID_KEY = "unmask.request_id"
CALLER_KEY = "unmask.caller"
_RETRY_LATER = {429, 503}

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed the connection: there is nobody left to answer."""


class Exchange:
    """Reads one message, sends one or many. Not reusable."""

    content_type = CONTENT_TYPE

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, max_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        caller: Caller | None = scope.get(CALLER_KEY)
        own = caller.limits.max_request_bytes if caller else 0
        self._max_bytes = min(max_bytes, own) if own else max_bytes
        self._limit_is_own = self._max_bytes != max_bytes
        self._has_begun = False

    def caller(self, needed: Permission | None = None) -> Caller:
        """Who sent the request.

        Raises:
            Forbidden: the token does not allow ``needed``.
        """
        caller: Caller = self._scope[CALLER_KEY]
        if needed is not None and needed not in caller.scopes:
            raise Forbidden(f"this token does not allow {needed.value}: ask for one with that scope")
        return caller

    async def read(self, expected: type[M]) -> M:
        """The message in the body.

        Raises:
            InvalidRequest, ContextTooLong, ClientGoneError: as :meth:`read_body`, or the body is no such message.
            ProtocolMismatch: it is not a message of this protocol version.
        """
        message = decode(await self.read_body(), expected)
        if request_id := _find_id(message):
            self._scope[REQUEST_ID_KEY] = request_id
        return message

    async def read_body(self) -> bytes:
        """The body, whole.

        Raises:
            InvalidRequest: it is of another content type, or did not arrive in time.
            ContextTooLong: it has more bytes than the server takes; raised before all of it was read.
            ClientGoneError: the client left before the body was complete.
        """
        headers = Headers(scope=self._scope)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != self.content_type:
            raise InvalidRequest(f"the header content-type must be {self.content_type}")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await self._read_body()
        except TimeoutError:
            raise InvalidRequest(f"the body did not arrive within {BODY_TIMEOUT_S:.0f} seconds") from None

    def path_parameter(self, name: str) -> str:
        """What the route found in the path."""
        return str(self._scope.get("path_params", {}).get(name, ""))

    def asks_for(self, name: str) -> bool:
        """Whether the address' query names ``name``."""
        return name in QueryParams(self._scope.get("query_string", b""))

    async def race_client(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, unless the client leaves first: then the work is cancelled.

        Returns only after the work has ended, so that nothing runs on behind a closed connection.

        Raises:
            ClientGoneError: the client left.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._wait_until_gone())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ClientGoneError
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    def query(self, name: str) -> str:
        """The value of ``name`` in the address' query; empty if it is not there."""
        return QueryParams(self._scope.get("query_string", b"")).get(name, "")

    def header(self, name: str) -> str:
        """The value of a header; empty if it is not there."""
        return Headers(scope=self._scope).get(name, "")

    async def answer_bytes(self, body: bytes, content_type: str) -> None:
        """Send a body that is no message of the protocol."""
        await self.begin(200, [(b"content-length", str(len(body)).encode())], content_type=content_type)
        await self._send({"type": "http.response.body", "body": body})

    async def answer(self, message: Message, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Send the only message."""
        await self.send_whole(encode(message), status, headers)

    async def send_whole(self, body: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send the only answer."""
        await self.begin(status, [(b"content-length", str(len(body)).encode()), *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def send_part(self, message: Message) -> None:
        """Send one message of a stream; the status line goes out with the first, so errors before it have theirs."""
        if not self._has_begun:
            await self.begin(200)
        await self.send_piece(encode(message))

    async def send_piece(self, body: bytes) -> None:
        """Send bytes of a stream that has begun."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: UnmaskError, status: int = 0) -> None:
        """Send an error: as the answer (with its class's status unless given), or as the last message of a stream.

        A 429 or 503 that knows when to come again says so in the header Retry-After.
        """
        note_error(error.code)
        if self._has_begun:
            await self.send_part(WireError.of(error))
            await self.end()
        else:
            status = status or error.http_status
            await self.answer(WireError.of(error), status, retry_headers(status, error))

    @property
    def has_begun(self) -> bool:
        """Whether the status line is out."""
        return self._has_begun

    @property
    def request_id(self) -> str:
        """What the log calls the request."""
        return str(self._scope[REQUEST_ID_KEY])

    async def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]] = (), *, content_type: str = "") -> None:
        """Send the status line and the headers."""
        self._has_begun = True
        kind = content_type or self.content_type
        fixed = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})

    async def _read_body(self) -> bytes:
        body = bytearray()
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientGoneError
            body += event.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            if not event.get("more_body", False):
                return bytes(body)

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _too_large(self) -> ContextTooLong:
        # Nobody has to read the rest: uvicorn drops what still comes in without keeping it.
        return ContextTooLong(
            f"the request has more than {self._max_bytes} bytes "
            f"({'your own limit' if self._limit_is_own else 'server.max_request_bytes'}): send less context"
        )


def retry_headers(status: int, error: UnmaskError) -> tuple[tuple[bytes, bytes], ...]:
    """The header Retry-After (whole seconds, at least 1) of an answer that has use for it."""
    if status not in _RETRY_LATER or error.retry_after_s <= 0:
        return ()
    return ((b"retry-after", str(math.ceil(error.retry_after_s)).encode()),)


def _find_id(message: object) -> str:
    for part in (message, getattr(message, "completion", None), getattr(message, "edit", None)):
        if found := getattr(part, "id", ""):
            return str(found)
    return ""
