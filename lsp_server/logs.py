"""Logging: stderr or a file, never stdout, and never source code.

pygls and asyncio put what they work on into their messages: payloads at INFO, parameters and exceptions at ERROR.
Their records pass only with their fixed template and the place of the error.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pygls.exceptions import JsonRpcException, JsonRpcInternalError

from lsp_server.reporting import describe_place

LOGGER_NAME = "lsp_server"
# A cancel that crosses its answer on the way: with every second key of a fast typist, and nobody's fault.
_ORDINARY = "Cancel notification for unknown message id"
_CAREFUL = ("lsp_server", "diffusion_core")  # these loggers keep source code out by themselves


class PayloadFilter(logging.Filter):
    """Strips arguments and exception texts from the records of other packages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Foreign records pass without their payload; that a request was refused or cancelled in time is no news."""
        if record.name.split(".", 1)[0] not in _CAREFUL:
            if str(record.msg).startswith(_ORDINARY):
                return False
            record.msg = str(record.msg).split("\n", 1)[0] if record.args else f"(a message of {record.name})"
            record.args = ()
            record.stack_info = None
            if record.exc_info and record.exc_info[1] is not None:
                error = record.exc_info[1]
                if isinstance(error, JsonRpcException) and not isinstance(error, JsonRpcInternalError):
                    return False
                record.msg = f"{record.msg}: {type(error).__name__}\n{describe_place(error)}"
            record.exc_info = None
            record.exc_text = None
        return True


def configure_logging(level: str, file: Path | None = None) -> None:
    """Send our log to ``file``, or to stderr.

    Raises:
        OSError: the file cannot be written.
    """
    handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(PayloadFilter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Change how much of our own packages is logged; other packages stay at warnings."""
    for name in _CAREFUL:
        logging.getLogger(name).setLevel(level.upper())
