"""What comes back over HTTP, as messages or as the error that fits."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from diffusion_core.errors import InvalidRequest, ProtocolMismatch, Unauthorized, Unreachable
from diffusion_core.net.protocol import CONTENT_TYPE, M, Message, MessageReader, WireError

if TYPE_CHECKING:
    import httpx

_UNAUTHORIZED = {401, 403}
_PROXY_LOGIN = 407
_TOO_LARGE = 413
_GATEWAY = {502, 503, 504}


def raise_for_answer(response: httpx.Response, address: str) -> None:
    """Raise what an answer stands for that is not ours to read: a refusal, or something else than Unmask."""
    status = response.status_code
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if status in _UNAUTHORIZED:
        raise Unauthorized(f"{address} does not accept the token: check client.token or client.token_file")
    if content_type == CONTENT_TYPE:
        return  # an error comes as a message and says more than its status
    if status == _PROXY_LOGIN:
        raise Unreachable(f"the proxy on the way to {address} asks for a login")
    if status == _TOO_LARGE:
        raise InvalidRequest(f"a proxy before {address} takes no request this large: send less context")
    if status in _GATEWAY:
        raise Unreachable(f"the gateway at {address} answers {status}: the engine behind it does not run")
    kind = content_type[:64] or "no content type"
    raise ProtocolMismatch(f"{address} answers {status} with {kind}: this is no Unmask server, check client.url")


async def read_messages(response: httpx.Response, address: str, *expected: type[M]) -> AsyncGenerator[M, None]:
    """The messages of an answer as they arrive; an error among them is raised.

    Raises:
        ProtocolMismatch: something else arrived.
    """
    reader = MessageReader(*cast("tuple[type[Message], ...]", (*expected, WireError)))
    # httpx declares an iterator; it is a generator, and must be closed when the reader leaves early.
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_bytes())) as chunks:
        async for data in chunks:
            try:
                messages = reader.feed(data)
            except InvalidRequest as error:
                raise ProtocolMismatch(f"{address} sent something unexpected: {error}") from None
            for message in messages:
                if isinstance(message, WireError):
                    raise message.as_exception()
                yield cast("M", message)
    reader.finish()


def explain_connect_error(address: str, error: httpx.ConnectError) -> str:
    """Why no connection came about, and what to do."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"the certificate of {address} is not trusted: set client.ca_file to the authority that signed it"
    return f"nothing answers at {address} ({error})"
