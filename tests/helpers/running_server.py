"""The engine server on a real socket, in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from diffusion_core.config import ServerConfig
from diffusion_core.net.activity import Activity
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.server import create_app
from diffusion_core.requests import EngineClient

TOKEN = "a-token-for-tests"


@dataclass(frozen=True)
class RunningServer:
    url: str
    activity: Activity

    def connect(self, token: str = TOKEN, **settings: Any) -> HttpEngineClient:
        return HttpEngineClient(self.url, token, **settings)


@contextmanager
def run_asgi(app: Any, **uvicorn_settings: Any) -> Iterator[str]:
    """Serve any ASGI application; yields host:port."""
    settings = {
        "log_config": None,
        "access_log": False,
        "lifespan": "off",
        "timeout_graceful_shutdown": 1,
    } | uvicorn_settings
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
        assert not thread.is_alive()


@contextmanager
def run_engine_server(engine: EngineClient, **settings: Any) -> Iterator[RunningServer]:
    activity = Activity()
    with run_asgi(create_app(engine, ServerConfig(**settings), TOKEN, activity)) as address:
        yield RunningServer(f"http://{address}", activity)


def wait_until(condition: Any, timeout_s: float = 5.0) -> None:
    """Poll a condition that another thread or process makes true."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true in time"
        time.sleep(0.005)
