"""A server process as an administrator starts one, around the scripted engine or a real one with a tiny model.

``python -m helpers.serve_process scripted SETTINGS`` serves the scripted engine with ServerConfig SETTINGS (JSON).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.protocol import CONTENT_TYPE, Message, encode

TOKEN = "a-token-for-tests"
START_TIMEOUT_S = 60


@dataclass
class Served:
    """A running process. Its log is in ``log``."""

    process: subprocess.Popen[bytes]
    log_file: Path
    url: str = ""
    verify: ssl.SSLContext | bool = True
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {TOKEN}"})

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, **settings: Any) -> HttpEngineClient:
        return HttpEngineClient(self.url, TOKEN, **settings)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=self.headers | headers, verify=self.verify, trust_env=False)

    def post(self, path: str, message: Message | None = None) -> httpx.Response:
        headers = {**self.headers, "content-type": CONTENT_TYPE}
        content = encode(message) if message is not None else b""
        return httpx.post(
            f"{self.url}{path}", headers=headers, content=content, verify=self.verify, trust_env=False, timeout=60
        )

    def wait_for_log(self, text: str, timeout_s: float = 20.0) -> None:
        give_up = time.monotonic() + timeout_s
        while text not in self.log:
            assert time.monotonic() < give_up, f"{text!r} is not in the log:\n{self.log}"
            time.sleep(0.02)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        give_up = time.monotonic() + timeout_s
        while self.get("/readyz").status_code != 200:
            assert time.monotonic() < give_up, self.log
            time.sleep(0.02)


@contextlib.contextmanager
def run_command(
    command: Sequence[str], log_file: Path, *, stdin: int = subprocess.DEVNULL, **environment: str
) -> Iterator[Served]:
    """A server that says on stderr where it listens; killed at the end if it still runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNMASK_")}
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdin=stdin, stderr=log, env=kept | paths | environment)
    served = Served(process, log_file)
    try:
        give_up = time.monotonic() + START_TIMEOUT_S
        while "listening on port" not in served.log:
            assert process.poll() is None, served.log
            assert time.monotonic() < give_up, served.log
            time.sleep(0.02)
        # The port that was asked for may have been 0.
        greeting = re.search(r"Unmask engine on (https?)://", served.log)
        port = re.search(r"listening on port (\d+)", served.log)
        assert greeting and port
        served.url = f"{greeting[1]}://127.0.0.1:{port[1]}"
        yield served
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def run_scripted(
    folder: Path, environment: dict[str, str] | None = None, *, stdin: int = subprocess.DEVNULL, **settings: Any
) -> Iterator[Served]:
    settings = {"port": 0, "token": TOKEN} | settings
    command = [sys.executable, "-m", "helpers.serve_process", "scripted", json.dumps(settings)]
    with run_command(command, folder / "server.log", stdin=stdin, **environment or {}) as served:
        yield served


@contextlib.contextmanager
def run_unmask(folder: Path, *arguments: str, **environment: str) -> Iterator[Served]:
    """`unmask serve` itself."""
    own = {
        "UNMASK_CACHE_DIR": str(folder / "cache"), "UNMASK_STATE_DIR": str(folder / "state"),
        "UNMASK_SERVER_TOKEN": TOKEN,
    }  # fmt: skip
    command = [sys.executable, "-m", "diffusion_core.commands", "serve", "--port", "0", *arguments]
    with run_command(command, folder / "serve.log", **own | environment) as served:
        yield served


if __name__ == "__main__":
    from helpers.scripted_engine import make_scripted_engine

    from diffusion_core.config import EngineConfig, ServerConfig
    from diffusion_core.net.serve import run_server

    given = json.loads(sys.argv[2])
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    run_server(EngineConfig(), ServerConfig(**values), make=make_scripted_engine)
