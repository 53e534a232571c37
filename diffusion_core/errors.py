"""Every error that Unmask raises on purpose, and how each one travels.

::

    UnmaskError
    |- ConfigError                a setting is wrong: the message names the setting
    |- CheckpointError            a checkpoint is missing, damaged, or of another kind than asked for
    |- InvalidRequest             a request that can never succeed as it is
    |  |- ContextTooLong
    |  |- NotFound
    |  `- Conflict
    |- EngineError                the engine could not do its work
    |  |- Overloaded
    |  |- RateLimited
    |  |- Closed
    |  |- AccountsUnavailable
    |  `- OutOfMemory
    |- DeadlineExceeded           nothing at all was ready when the deadline came
    |- RequestCancelled           the caller went away
    `- TransportError             between client and server
       |- Unreachable
       |  `- Untrusted
       |- ProtocolMismatch
       `- Unauthorized
          `- Forbidden

Each class carries its wire code, its HTTP status and whether the same request may succeed when sent again; each
error, in how many seconds that is worth a try.
Foreign exceptions are translated at the edges only (files, network, pygls).
"""

from __future__ import annotations

from typing import ClassVar


class UnmaskError(Exception):
    """Base of all errors raised on purpose. ``str(error)`` is fit for a user to read.

    ``retry_after_s`` is after how many seconds the same request may be sent again (0: nothing is known); over HTTP it
    is the header Retry-After of a 429 or a 503.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, *arguments: object, retry_after_s: float = 0.0) -> None:
        super().__init__(*arguments)
        self.retry_after_s = retry_after_s


class ConfigError(UnmaskError):
    """A setting is wrong; the message names it and what to change."""

    code = "config"


class CheckpointError(UnmaskError):
    """A checkpoint is missing, damaged or cannot do what was asked; the message names file, tensor or setting."""

    code = "checkpoint"
    http_status = 422


class InvalidRequest(UnmaskError):
    """The request can never succeed as it is; the message names the field."""

    code = "invalid_request"
    http_status = 400


class ContextTooLong(InvalidRequest):
    """Prompt plus answer exceed what the model or the configured limit allows."""

    code = "context_too_long"
    http_status = 413


class NotFound(InvalidRequest):
    """What the request names is not there."""

    code = "not_found"
    http_status = 404


class Conflict(InvalidRequest):
    """What the request wants to make is there already, or is still in use."""

    code = "conflict"
    http_status = 409


class EngineError(UnmaskError):
    """The engine failed while working on the request."""

    code = "engine"


class Overloaded(EngineError):
    """Too much is queued; try again later."""

    code = "overloaded"
    http_status = 503
    retryable = True


class RateLimited(EngineError):
    """The user's own limit is reached (requests a minute, or at once); others are not affected."""

    code = "rate_limited"
    http_status = 429
    retryable = True


class Closed(EngineError):
    """The engine is shutting down or was closed."""

    code = "closed"
    http_status = 503
    retryable = True


class AccountsUnavailable(EngineError):
    """The database of users and tokens cannot be reached."""

    code = "accounts_unavailable"
    http_status = 503
    retryable = True


class OutOfMemory(EngineError):
    """A model or a cache does not fit the memory; the message gives both figures."""

    code = "out_of_memory"
    http_status = 507


class DeadlineExceeded(UnmaskError):
    """The deadline came before a single token was committed."""

    code = "deadline_exceeded"
    http_status = 504
    retryable = True


class RequestCancelled(UnmaskError):
    """The caller cancelled the request."""

    code = "cancelled"
    http_status = 499


class TransportError(UnmaskError):
    """Something between client and server failed."""

    code = "transport"
    http_status = 502
    retryable = True


class Unreachable(TransportError):
    """No engine answers at the configured address."""

    code = "unreachable"


class Untrusted(Unreachable):
    """What answers at the configured address cannot prove that it is the engine; the message names the setting."""

    code = "untrusted"
    retryable = False


class ProtocolMismatch(TransportError):
    """The other side speaks another protocol version, or not our protocol at all."""

    code = "protocol_mismatch"
    http_status = 400
    retryable = False


class Unauthorized(TransportError):
    """The bearer token is missing or wrong."""

    code = "unauthorized"
    http_status = 401
    retryable = False


class Forbidden(Unauthorized):
    """The bearer token is good, but not for this."""

    code = "forbidden"
    http_status = 403


def _walk(cls: type[UnmaskError]) -> list[type[UnmaskError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in _walk(child))]


def error_from_code(code: str, message: str) -> UnmaskError:
    """The error a wire code stands for; an unknown code (a newer server) becomes :class:`EngineError`."""
    by_code = {cls.code: cls for cls in _walk(UnmaskError)}
    return by_code.get(code, EngineError)(message)
