"""What comes back over HTTP, as messages or as the error that fits."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from diffusion_core.errors import (
    Forbidden,
    InvalidRequest,
    ProtocolMismatch,
    RateLimited,
    Unauthorized,
    UnmaskError,
    Unreachable,
)
from diffusion_core.net.protocol import CONTENT_TYPE, M, Message, MessageReader, WireError

if TYPE_CHECKING:
    import httpx

_UNAUTHORIZED = 401
_FORBIDDEN = 403
_PROXY_LOGIN = 407
_TOO_LARGE = 413
_TOO_MANY = 429
_GATEWAY = {502, 503, 504}
_MAX_DIGITS = 9


def raise_for_answer(response: httpx.Response, address: str) -> None:
    """Raise what an answer stands for that is not ours to read: a refusal, or something else than Unmask."""
    status = response.status_code
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if status == _UNAUTHORIZED:
        raise Unauthorized(
            f"{address} does not accept the token: check client.token or client.token_file, or run `unmask login`"
        )
    if content_type == CONTENT_TYPE:
        return  # an error comes as a message and says more than its status
    if status == _FORBIDDEN:
        raise Forbidden(f"{address} refuses the request before its token was looked at: check client.url")
    if status == _PROXY_LOGIN:
        raise Unreachable(f"the proxy on the way to {address} asks for a login")
    if status == _TOO_LARGE:
        raise InvalidRequest(f"a proxy before {address} takes no request this large: send less context")
    if status == _TOO_MANY:
        error: UnmaskError = RateLimited(f"the gateway at {address} lets no more requests through for now")
        error.retry_after_s = read_retry_after(response)
        raise error
    if status in _GATEWAY:
        error = Unreachable(f"the gateway at {address} answers {status}: the engine behind it does not run")
        error.retry_after_s = read_retry_after(response)
        raise error
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
            except InvalidRequest as problem:
                raise ProtocolMismatch(f"{address} sent something unexpected: {problem}") from None
            for message in messages:
                if isinstance(message, WireError):
                    error = message.as_exception()
                    error.retry_after_s = read_retry_after(response)
                    raise error
                yield cast("M", message)
    reader.finish()


def read_retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait (``Retry-After``, as a number or a date); 0 if it says nothing of use."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:_MAX_DIGITS])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
