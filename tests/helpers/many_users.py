"""A real server process with users: ``python -m helpers.many_users FOLDER`` serves scripted answers on a free port.

Its database is ``$UNMASK_SERVER_DATABASE_URL``, else the file in the state folder. The address is what it prints.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from helpers.answering_engine import command_environment
from helpers.scripted_engine import make_scripted_engine

from diffusion_core.accounts.open import open_accounts
from diffusion_core.accounts.store import Accounts
from diffusion_core.callers import Scope
from diffusion_core.config import EngineConfig, ServerConfig, from_environment
from diffusion_core.net.protocol import CONTENT_TYPE, encode
from diffusion_core.requests import CompletionRequest

BOTH = (Scope.COMPLETE, Scope.EDIT)


@dataclass
class ManyUsers:
    """The server, and its database as another process sees it."""

    url: str
    accounts: Accounts
    log: list[str] = field(default_factory=list)

    def token(self, user: str, *scopes: Scope, **settings: object) -> str:
        """A fresh token of a user, who is made if not there."""
        if user not in [each.name for each in self.accounts.users()]:
            self.accounts.add_user(user, actor="test")
        return self.accounts.create_token(user, actor="test", scopes=scopes or BOTH, **settings)[1]  # type: ignore[arg-type]

    def complete(self, token: str, client: httpx.Client | None = None, **fields: object) -> httpx.Response:
        request = CompletionRequest(**{"prefix": "abc", "max_tokens": 1, **fields})  # type: ignore[arg-type]
        headers = {"authorization": f"Bearer {token}", "content-type": CONTENT_TYPE}
        url, content = f"{self.url}/v1/complete", encode(request)
        if client is not None:
            return client.post(url, headers=headers, content=content)
        return httpx.post(url, headers=headers, content=content, trust_env=False)


@contextmanager
def run_many_users(folder: Path, **environment: str) -> Iterator[ManyUsers]:
    settings = command_environment(folder, UNMASK_SERVER_USERS="database", **environment)
    command = [sys.executable, "-m", "helpers.many_users"]
    process = subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log: list[str] = []
    url = environment.get("UNMASK_SERVER_DATABASE_URL") or f"sqlite:///{folder / 'state' / 'server.db'}"
    try:
        while not (log and "listening" in log[-1]):
            line = process.stderr.readline()
            assert line, "".join(log)
            log.append(line)
        reader = threading.Thread(target=lambda: log.extend(process.stderr or ()))
        reader.start()
        found = re.search(r"http://127\.0\.0\.1:\d+", "".join(log))
        assert found, "".join(log)
        with closing(open_accounts(url)) as accounts:
            yield ManyUsers(found[0], accounts, log)
        process.terminate()
        assert process.wait(20) == 0
        reader.join(5)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


if __name__ == "__main__":
    from diffusion_core.net.serve import run_server

    run_server(EngineConfig(), from_environment(ServerConfig, "server", port=0), make=make_scripted_engine)
