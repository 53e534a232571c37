"""Error policy: who is told what when something goes wrong.

Automatic requests degrade to an empty answer and a status with a reason. A command of the user's fails with a message
that can be read. Nothing here ever puts source code into a log: unknown errors are logged by type and place only.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from enum import StrEnum

from pygls.exceptions import JsonRpcException, JsonRpcInternalError, JsonRpcInvalidParams

from diffusion_core.errors import (
    CheckpointError,
    Closed,
    ConfigError,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    OutOfMemory,
    Overloaded,
    ProtocolMismatch,
    RateLimited,
    Unauthorized,
    UnmaskError,
    Unreachable,
    Untrusted,
)

REQUEST_FAILED = -32803  # LSP: the request was right, its work failed


class Kind(StrEnum):
    """How the status is shown."""

    NORMAL = "Normal"
    BUSY = "Busy"
    WARNING = "Warning"
    ERROR = "Error"
    INACTIVE = "Inactive"


@dataclass(frozen=True, kw_only=True)
class Status:
    """What ``$/unmask/status`` says. ``reason`` is one word for programs, ``message`` a sentence for people."""

    kind: Kind
    reason: str
    message: str
    model: str = ""
    latency_ms: int = 0

    def to_params(self) -> dict[str, str | int]:
        """The notification's parameters."""
        return {
            "kind": self.kind.value,
            "message": self.message,
            "reason": self.reason,
            "model": self.model,
            "latencyMs": self.latency_ms,
        }


# Error class -> kind, reason, and what the user can do about it. The first match counts.
_ADVICE: tuple[tuple[type[UnmaskError], Kind, str, str], ...] = (
    (Forbidden, Kind.WARNING, "forbidden", "Whoever runs the server gives out tokens that allow it."),
    (Unauthorized, Kind.ERROR, "unauthorized", "Check unmask.engine.token or unmask.engine.tokenFile."),
    (Untrusted, Kind.ERROR, "untrusted", "In the editor: unmask.engine.caFile and unmask.engine.certFile."),
    (Unreachable, Kind.ERROR, "unreachable", "Trying again until it answers."),
    (ProtocolMismatch, Kind.ERROR, "protocol_mismatch", "Update the older of language server and engine."),
    (Overloaded, Kind.WARNING, "overloaded", "Too much is queued at the engine."),
    (RateLimited, Kind.WARNING, "rate_limited", "Whoever runs the server sets this limit. It passes by itself."),
    (Closed, Kind.WARNING, "closed", "Trying again until it answers."),
    (DeadlineExceeded, Kind.WARNING, "slow", "unmask.completion.deadlineMs bounds the time of a suggestion."),
    (OutOfMemory, Kind.ERROR, "out_of_memory", "Choose a smaller unmask.engine.model."),
    (CheckpointError, Kind.ERROR, "checkpoint", ""),
    (ConfigError, Kind.ERROR, "config", ""),
    (InvalidRequest, Kind.WARNING, "invalid_request", ""),
)


def status_of_error(error: UnmaskError) -> Status:
    """The status that an engine's error puts the server into."""
    for cls, kind, reason, advice in _ADVICE:
        if isinstance(error, cls):
            return Status(kind=kind, reason=reason, message=f"{_sentence(error)} {advice}".strip())
    return Status(kind=Kind.WARNING, reason=error.code, message=_sentence(error))


def request_failed(error: UnmaskError) -> JsonRpcException:
    """The answer to a command whose work failed."""
    return JsonRpcException(message=status_of_error(error).message, code=REQUEST_FAILED)


def invalid_params(message: str) -> JsonRpcException:
    """The answer to a command that was called wrongly."""
    return JsonRpcInvalidParams(message=message)


def internal_error(logger: logging.Logger, what: str, error: BaseException) -> JsonRpcException:
    """Log an error nobody foresaw, by type and place, and give the answer for it."""
    logger.error("%s: unexpected %s\n%s", what, type(error).__name__, describe_place(error))
    return JsonRpcInternalError(message=f"{what}: unexpected {type(error).__name__}. The log says where.")


def describe_place(error: BaseException) -> str:
    """The stack of an exception without its message, which may quote what was being worked on."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()


def _sentence(error: UnmaskError) -> str:
    text = str(error).strip() or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
