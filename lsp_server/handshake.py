"""The first message is answered before pygls is imported, so that no editor ever waits for the imports.

The message is then handed on as if nobody had read it; the protocol is told that its answer is already sent.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import Any, BinaryIO

from lsp_server.capabilities import server_capabilities

_LENGTH = re.compile(rb"Content-Length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Greeting:
    """What was read from the client, and the id of the request that was answered (None if none was)."""

    read: bytes
    answered: int | str | None


class ReplayedInput(io.RawIOBase):
    """What was read already, then the rest of ``stdin``; as much of a binary stream as pygls' reader uses."""

    def __init__(self, read: bytes, stdin: BinaryIO) -> None:
        super().__init__()
        self._read = io.BytesIO(read)
        self._stdin = stdin

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line; an empty one at the end of the input."""
        return self._read.readline() or self._stdin.readline()

    def read(self, size: int = -1, /) -> bytes:
        """The next ``size`` bytes; fewer only at the end of the input."""
        return self._read.read(size) or self._stdin.read(size)


def greet(stdin: BinaryIO, stdout: BinaryIO, version: str) -> Greeting:
    """Read the first message and answer it if it is a well-formed ``initialize``."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stdin.readline()
        head += line
        if not line:
            return Greeting(head, None)
    length = _LENGTH.search(head)
    body = stdin.read(int(length[1])) if length else b""
    message = _parse(body)
    if message is None:
        return Greeting(head + body, None)
    result = {
        "capabilities": server_capabilities(message["params"]["capabilities"]),
        "serverInfo": {"name": "unmask", "version": version},
    }
    answer = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    stdout.write(b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer))
    stdout.flush()
    return Greeting(head + body, message["id"])


def _parse(body: bytes) -> dict[str, Any] | None:
    """The message if it is an ``initialize`` whose parts used here have the right types."""
    try:
        message = json.loads(body)
        capabilities = message["params"]["capabilities"]
        parts = (capabilities, capabilities.get("general") or {}, capabilities.get("textDocument") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_initialize = message.get("method") == "initialize" and isinstance(message.get("id"), (int, str))
    return message if is_initialize and all(isinstance(part, dict) for part in parts) else None
