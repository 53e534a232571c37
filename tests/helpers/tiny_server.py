"""`unmask serve` as a process of its own, with a tiny random model: everything real but the weights."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from helpers.answering_engine import command_environment
from helpers.tiny_models import save_tiny_checkpoint

TOKEN = "a-token-for-tests"
START_S = 180


@dataclass(frozen=True)
class ServeProcess:
    """A running `unmask serve`."""

    url: str
    model: str
    pid: int
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {TOKEN}"}

    def post(self, path: str, **fields: object) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", headers=self.headers, json=fields, trust_env=False, timeout=60)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=self.headers, trust_env=False, timeout=60)


@contextmanager
def serve(folder: Path, model: str, **environment: str) -> Iterator[ServeProcess]:
    """Start the server on a free port and wait until the model answers."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "diffusion_core.commands", "serve", "--port", "0", "--model", model]
    own = command_environment(folder, UNMASK_SERVER_TOKEN=TOKEN, **environment)
    if "/" not in model:
        own.pop("UNMASK_CACHE_DIR")
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        yield ServeProcess(_wait_until_ready(process, log), model, process.pid, log)
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up:
        assert process.poll() is None, log.read_text()
        if found := re.search(r"(http://127\.0\.0\.1:\d+)", log.read_text()):
            headers = {"authorization": f"Bearer {TOKEN}"}
            try:
                if httpx.get(f"{found[1]}/health", headers=headers, trust_env=False, timeout=20).status_code == 200:
                    return found[1]
            except httpx.ConnectError:
                pass
        time.sleep(0.05)
    raise TimeoutError(f"no answer in {START_S} s: {log.read_text()}")


@contextmanager
def serve_tiny(folder: Path, **environment: str) -> Iterator[ServeProcess]:
    """The server with a tiny random model that never ends an answer by itself."""
    with serve(folder, str(save_tiny_checkpoint(folder / "model")), **environment) as server:
        yield server


def resident_bytes(pid: int) -> int:
    """Memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
