"""An engine whose answers are written down in a test, behind the real engine server on loopback.

In a thread of the test (:func:`serve_engine`) its requests can be looked at; as a process
(``python -m helpers.lsp_engine PORT TOKEN RULES``) it can be killed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn

from diffusion_core.config import ServerConfig
from diffusion_core.errors import UnmaskError
from diffusion_core.net.server import create_app
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    FinishReason,
    Health,
    ModelStatus,
    PreviewFrame,
    Result,
    Timings,
    WarmRequest,
)

TOKEN = "a-token-of-the-tests"
MODEL = "scripted"


@dataclass
class WrittenEngine:
    """Answers a completion with the text whose key the prefix ends with, and an edit with that of its instruction.

    Every four characters cost a forward of ``forward_s``. A cancel takes effect between forwards.
    """

    completions: dict[str, str] = field(default_factory=dict)
    alternatives: dict[str, list[str]] = field(default_factory=dict)
    edits: dict[str, str] = field(default_factory=dict)
    forward_s: float = 0.005
    warm_s: float = 0.0
    edit_finish: FinishReason = FinishReason.STOP
    error: UnmaskError | None = None
    status: str = "ready"
    asked: list[CompletionRequest] = field(default_factory=list)
    asked_edits: list[EditRequest] = field(default_factory=list)
    warmed: list[WarmRequest] = field(default_factory=list)
    num_forwards: int = 0
    num_cancelled: int = 0

    async def complete(self, request: CompletionRequest) -> Result:
        self.asked.append(request)
        if self.error:
            raise self.error
        text = next((text for key, text in self.completions.items() if request.prefix.endswith(key)), "")
        others = next((texts for key, texts in self.alternatives.items() if request.prefix.endswith(key)), [])
        await self._work(text)
        return dataclasses.replace(
            self._result(request.id, text), alternatives=tuple(others[: request.num_alternatives])
        )

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        self.asked_edits.append(request)
        if self.error:
            raise self.error
        text = self.edits[request.instruction]
        for end in range(0, len(text), 4):
            await self._work("four")
            yield PreviewFrame(id=request.id, settled=text[:end], unsettled=text[end : end + 8])
        yield self._result(request.id, text, self.edit_finish)

    async def warm(self, request: WarmRequest) -> None:
        self.warmed.append(request)
        try:
            await asyncio.sleep(self.warm_s)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    async def health(self) -> Health:
        models = (ModelStatus(name=MODEL, task="completion", state=self.status),)
        return Health(status=self.status, version="0", device="cpu", dtype="float32", models=models)

    async def aclose(self) -> None:
        return None

    async def _work(self, text: str) -> None:
        try:
            for _ in range(0, len(text), 4):
                await asyncio.sleep(self.forward_s)
                self.num_forwards += 1
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    def _result(self, request_id: str, text: str, finish: FinishReason = FinishReason.STOP) -> Result:
        num = -(-len(text) // 4)
        return Result(
            id=request_id, text=text, finish_reason=finish, num_forwards=num, num_tokens=num, model=MODEL,
            timings=Timings(total_ms=num * self.forward_s * 1000),
        )  # fmt: skip


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Signals belong to the test run."""


def _server(engine: WrittenEngine, token: str) -> _Server:
    app = create_app(engine, ServerConfig(token=token), token)
    return _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1))


@contextmanager
def serve_engine(engine: WrittenEngine, token: str = TOKEN) -> Iterator[str]:
    """The engine's URL while it is served."""
    server = _server(engine, token)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_until_listening(port: int, timeout_s: float = 10) -> None:
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < give_up
            time.sleep(0.02)


if __name__ == "__main__":
    port, token, rules = sys.argv[1:]
    engine = WrittenEngine(**json.loads(rules))
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        _server(engine, token).run(sockets=[listener])
