"""How log lines look: text for people or JSON for machines, a line each, and never a message of an exception.

Exceptions of libraries may quote what they were given, and that is the user's code. Here they are types and places
(:func:`~diffusion_core.net.quiet_logs.describe_exception`), whoever logged them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from diffusion_core.net.observing.observation import CURRENT
from diffusion_core.net.quiet_logs import describe_exception

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    10: "\\n", 13: "\\r", 9: "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029",
}  # fmt: skip

logger = logging.getLogger(__name__)


def configure_logging(log_format: str, log_level: str) -> None:
    """Send all log lines of this process to stderr, as ``text`` or ``json``, from ``log_level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(add_request_id)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(log_level.upper())
    # It tells of its plug-ins at every start; what it did to a database, we say ourselves.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def add_request_id(record: logging.LogRecord) -> bool:
    """Give a record the id of the request in whose context it was made. A filter that lets everything pass."""
    observation = CURRENT.get()
    if observation is not None and not hasattr(record, "request_id"):
        record.request_id = observation.request_id
    return True


class TextFormatter(logging.Formatter):
    """Time, level, logger and message. Control characters are escaped: one record is one line."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = super().format(_without_stack(record)).translate(_ESCAPES)
        request_id = getattr(record, "request_id", "")
        return line if not request_id or request_id in line else f"{line} (request {request_id})"

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name is logging's
        """What kind of exception and where; never its message."""
        return describe_exception(ei[1])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, request; an access line's fields too."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            line["request"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = describe_exception(record.exc_info[1])
        return json.dumps(line)


def log_loop_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An event loop's exception handler whose lines hold no message of an exception, as asyncio's own do."""
    error = context.get("exception")
    detail = f": {describe_exception(error)}" if error is not None else ""
    logger.error("%s%s", context.get("message", "an error in the event loop"), detail)


def _without_stack(record: logging.LogRecord) -> logging.LogRecord:
    # A text that another handler's formatter left behind would be taken as it is.
    record.exc_text = record.stack_info = None
    return record
