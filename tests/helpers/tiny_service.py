"""A real `unmask serve` process with a tiny random model: what an administrator starts, in miniature."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from helpers.answering_engine import command_environment
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.accounts.open import open_accounts
from diffusion_core.callers import Scope
from diffusion_core.errors import UnmaskError
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.requests import Health

TOKEN = "a-token-for-the-served-engine"
_START_S = 120.0


@dataclass(frozen=True)
class TinyService:
    """The process, where it listens, its log (stderr), and its tokens; the first is an administrator's."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    tokens: tuple[str, ...]

    def connect(self) -> HttpEngineClient:
        return HttpEngineClient(self.url, self.tokens[0])

    def get(self, path: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.tokens[0]}"}
        return httpx.get(f"{self.url}{path}", headers=headers, trust_env=False, timeout=30)

    def stop(self) -> int:
        """End it as an administrator does; its exit code."""
        self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def serve_tiny_model(folder: Path, *, settings: Sequence[str] = (), num_users: int = 0) -> Iterator[TinyService]:
    """Start it, wait until its model is loaded, end it.

    ``settings`` are lines of the table [server]. With ``num_users`` there are that many users with a token each and
    no limits; without, there is one token.
    """
    checkpoint = save_tiny_checkpoint(folder / "model")
    engine = [
        f'model = "{checkpoint}"', f'edit_model = "{checkpoint}"', 'dtype = "float32"', 'device = "cpu"',
        "num_threads = 1", "prefix_cache_bytes = 67108864", # a prompt of bytes is long: room for those of all typists
    ]  # fmt: skip
    server = ["port = 0", *settings]
    if num_users:
        url = f"sqlite:///{folder / 'users.db'}"
        tokens = make_users(url, num_users)
        server += ['users = "database"', f'database_url = "{url}"', "requests_per_minute = 0", "requests_at_once = 0"]
    else:
        tokens = (TOKEN,)
        server += [f'token = "{TOKEN}"']
    log, config = folder / "serve.log", folder / "serve.toml"
    config.write_text("\n".join(["[engine]", *engine, "[server]", *server, ""]))
    config.chmod(0o600)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "diffusion_core.commands", "serve", "--config", str(config)],
            env=command_environment(folder), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        yield TinyService(process, wait_until_ready(process, log, tokens[0]), log, tokens)
    finally:
        process.kill()
        process.wait(10)


def make_users(url: str, count: int) -> tuple[str, ...]:
    """Users in a fresh database; a token of each."""
    tokens = []
    with contextlib.closing(open_accounts(url, may_upgrade=True)) as accounts:
        for number in range(count):
            name = f"typist-{number}"
            accounts.add_user(name, actor="test")
            scopes = (Scope.COMPLETE, Scope.EDIT) if number else (Scope.COMPLETE, Scope.EDIT, Scope.ADMIN)
            tokens.append(accounts.create_token(name, actor="test", scopes=scopes)[1])
    return tuple(tokens)


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, token: str) -> str:
    """The address of the server, once its model can answer."""
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {log.read_text()}")
        found = re.search(r"Unmask engine on (http://[^\s\"]+)", log.read_text())
        if found and asyncio.run(read_status(found[1], token)) == "ready":
            return found[1]
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


async def read_status(url: str, token: str) -> str:
    """The engine's status; a server that is not there yet is still loading."""
    client = HttpEngineClient(url, token)
    try:
        health: Health = await client.health()
    except UnmaskError:
        return "loading"
    finally:
        await client.aclose()
    return health.status
