"""An engine server as a process on a port of the test's choice, so that it can be killed and come back there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helpers.answering_engine import ROOT
from helpers.lsp_engine import TOKEN, free_port, wait_until_listening

from diffusion_core.config import ClientConfig


class RemoteProcess:
    """``rules`` are the fields of a WrittenEngine."""

    def __init__(self, **rules: Any) -> None:
        self.port = free_port()
        self._rules = json.dumps(rules)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, **changes: Any) -> ClientConfig:
        return ClientConfig(**{"url": self.url, "token": TOKEN} | changes)

    def begin(self) -> None:
        """Start, without waiting."""
        command = [sys.executable, "-m", "helpers.lsp_engine", str(self.port), TOKEN, self._rules]
        self._process = subprocess.Popen(command, cwd=ROOT / "tests")

    def start(self) -> None:
        self.begin()
        wait_until_listening(self.port, 30)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def run_remote(**rules: Any) -> Iterator[RemoteProcess]:
    remote = RemoteProcess(**rules)
    remote.start()
    try:
        yield remote
    finally:
        remote.kill()
