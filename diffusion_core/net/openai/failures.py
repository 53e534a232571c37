"""Errors in OpenAI's shape: what its clients turn into exceptions of their own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diffusion_core.errors import (
    CheckpointError,
    ContextTooLong,
    InvalidRequest,
    ProtocolMismatch,
    UnmaskError,
)

if TYPE_CHECKING:
    from pydantic import ValidationError

_MAX_PROBLEMS = 3
_MAX_LISTED = 100  # problems of one body that are looked at at all
_MAX_NAME = 64
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


class ModelNotFound(InvalidRequest):
    """The request names a model that is not served here; the message lists those that are."""

    code = "model_not_found"
    http_status = 404


class WrongField(InvalidRequest):
    """A field of the body cannot be what it is; the message begins with its name."""

    code = "wrong_field"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def status_of(error: UnmaskError) -> int:
    """The HTTP status: what the request itself causes is 400, where a class of Unmask's has a status of its own."""
    if isinstance(error, CheckpointError | ContextTooLong | ProtocolMismatch):
        return 400
    return error.http_status


def describe(error: UnmaskError) -> dict[str, dict[str, str | None]]:
    """The body of the answer: a ``Failure`` of ``replies``."""
    code: str | None = "context_length_exceeded" if isinstance(error, ContextTooLong) else error.code
    if code in {InvalidRequest.code, WrongField.code}:
        code = None  # OpenAI has none either
    kind = _TYPES.get(status_of(error), "server_error")
    message, field = str(error) or "internal error", getattr(error, "field", None) or None
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def retry_headers(error: UnmaskError) -> list[tuple[bytes, bytes]]:
    """When to try again, for errors that may go away."""
    if not error.retryable:
        return []
    return [(b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode())]


def explain(error: ValidationError, unsupported: frozenset[str]) -> WrongField:
    """What is wrong with a body, without any of its values."""
    if (count := error.error_count()) > _MAX_LISTED:
        # Made into a list, those of a body of a few MiB would stop the server for seconds and fill its memory.
        return WrongField(f"the body has {count} problems: too many to name them")
    problems = error.errors(include_url=False, include_context=True, include_input=False)
    texts: dict[str, str] = {}
    for problem in problems:
        path, text = _name(problem["loc"]), problem["msg"]
        if problem["loc"] and problem["loc"][0] in unsupported:
            path, text = str(problem["loc"][0]), "not supported here: leave it out"
        elif problem["type"] == "extra_forbidden":
            text = "unknown field"
        elif problem["type"].startswith(("json_", "value_error")):
            text = "is no valid JSON" if problem["type"].startswith("json_") else text.removeprefix("Value error, ")
        # Of a union, the first complaint about a field says what is mostly meant.
        texts.setdefault(path, text[:1].lower() + text[1:])
    shown = [f"{path}: {text}" if path else f"the body {text}" for path, text in list(texts.items())[:_MAX_PROBLEMS]]
    rest = len(texts) - len(shown)
    more = f"; and {rest} more" if rest else ""
    return WrongField("; ".join(shown) + more, next(iter(texts), ""))


def _name(location: tuple[int | str, ...]) -> str:
    """The path of a field. A name is the sender's text as well: only what looks like one is repeated."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.endswith("str") or part.startswith("list["):
            continue  # which of the types that a field may have was tried
        elif part.replace("_", "").isalnum() and part.isascii() and len(part) <= _MAX_NAME:
            path += f".{part}" if path else part
    return path
