"""Stands between an editor and its language server and writes down what passes, for tests of real editors.

``python -m helpers.lsp_tap FOLDER COMMAND...`` runs the server. Each message becomes a line of
``FOLDER/messages.jsonl`` with ``from`` ("editor" or "server"); ``FOLDER/pid`` names the server's process.
While ``FOLDER/hold`` exists, ``workspace/applyEdit`` waits: what a test types
meanwhile reaches the document before the edit does. While ``FOLDER/deaf`` exists, ``$/cancelRequest`` is lost, as if it
came a moment too late.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO


class Tap:
    """What the test reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def command(self, *server: str) -> list[str]:
        return [sys.executable, "-P", "-m", "helpers.lsp_tap", str(self.folder), *server]

    @property
    def messages(self) -> list[dict[str, Any]]:
        path = self.folder / "messages.jsonl"
        # The last line may be half written.
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def params_of(self, method: str, since: int = 0) -> list[Any]:
        """Parameters of every message with this method, from message number ``since`` on."""
        return [message["params"] for message in self.messages[since:] if message.get("method") == method]

    def commands(self, name: str, since: int = 0) -> list[Any]:
        """Arguments of every run of a command of the server."""
        asked = self.params_of("workspace/executeCommand", since)
        return [(params["arguments"] or [None])[0] for params in asked if params["command"] == name]

    def __len__(self) -> int:
        return len(self.messages)


def pump(source: BinaryIO, target: BinaryIO, name: str, log: BinaryIO, lock: threading.Lock, hold: Path) -> None:
    """Copy messages until the source ends."""
    while True:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = source.readline()
            if not line:
                target.close()
                return
            head += line
        found = re.search(rb"Content-Length: *(\d+)", head, re.IGNORECASE)
        assert found
        body = source.read(int(found[1]))
        message = json.loads(body)
        with lock:
            log.write(json.dumps({"from": name, **message}).encode() + b"\n")
            log.flush()
        while message.get("method") == "workspace/applyEdit" and hold.exists():
            time.sleep(0.02)
        if message.get("method") == "$/cancelRequest" and (hold.parent / "deaf").exists():
            continue
        target.write(head + body)
        target.flush()


def main() -> int:
    folder, command = Path(sys.argv[1]), sys.argv[2:]
    lock, hold = threading.Lock(), folder / "hold"
    with (folder / "messages.jsonl").open("ab") as log:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdin and server.stdout
        (folder / "pid").write_text(str(server.pid))
        inward = (sys.stdin.buffer, server.stdin, "editor", log, lock, hold)
        threading.Thread(target=pump, args=inward, daemon=True).start()
        pump(server.stdout, sys.stdout.buffer, "server", log, lock, hold)
        return server.wait()


if __name__ == "__main__":
    sys.exit(main())
