"""One HTTP request and its answer, as ASGI messages.

Starlette's own request and response classes are not enough here: a plain handler is not cancelled when the client
leaves, and a body is read whole before anything can refuse it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from diffusion_core.errors import ContextTooLong, InvalidRequest, UnmaskError
from diffusion_core.net.protocol import CONTENT_TYPE, M, Message, WireError, decode, encode

BODY_TIMEOUT_S = 60.0
REQUEST_ID_KEY = "unmask.request_id"

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed the connection: there is nobody left to answer."""


class Exchange:
    """Reads one message, sends one or many. Not reusable."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, max_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._has_begun = False

    async def read(self, expected: type[M]) -> M:
        """The message in the body.

        Raises:
            InvalidRequest: the body is no such message.
            ContextTooLong: it has more bytes than the server takes; raised before all of it was read.
            ProtocolMismatch: it is not a message of this protocol version.
            ClientGoneError: the client left before the body was complete.
        """
        headers = Headers(scope=self._scope)
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != CONTENT_TYPE:
            raise InvalidRequest(f"the header content-type must be {CONTENT_TYPE}")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await self._read_body()
        except TimeoutError:
            raise InvalidRequest(f"the body did not arrive within {BODY_TIMEOUT_S:.0f} seconds") from None
        message = decode(body, expected)
        if request_id := _find_id(message):
            self._scope[REQUEST_ID_KEY] = request_id
        return message

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

    async def answer(self, message: Message, status: int = 200) -> None:
        """Send the only message."""
        body = encode(message)
        await self._begin(status, [(b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def send_part(self, message: Message) -> None:
        """Send one message of a stream; the status line goes out with the first, so errors before it have theirs."""
        if not self._has_begun:
            await self._begin(200, [])
        await self._send({"type": "http.response.body", "body": encode(message), "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: UnmaskError, status: int = 0) -> None:
        """Send an error: as the answer (with its class's status unless given), or as the last message of a stream."""
        if self._has_begun:
            await self.send_part(WireError.of(error))
            await self.end()
        else:
            await self.answer(WireError.of(error), status or error.http_status)

    async def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._has_begun = True
        fixed = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": status, "headers": fixed + headers})

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
            f"the request has more than {self._max_bytes} bytes (server.max_request_bytes): send less context"
        )


def _find_id(message: object) -> str:
    for part in (message, getattr(message, "completion", None), getattr(message, "edit", None)):
        if found := getattr(part, "id", ""):
            return str(found)
    return ""
