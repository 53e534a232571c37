"""Running the engine server as a process: by hand (``unmask serve``) or for the launcher, with a state file.

Nothing heavy is imported before the socket listens: the server answers health checks while torch loads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from diffusion_core.config import EngineConfig, ServerConfig, state_folder
from diffusion_core.errors import ConfigError
from diffusion_core.net.auth import resolve_server_token
from diffusion_core.net.deferred import DeferredEngine, StartableEngine
from diffusion_core.net.server import Activity, create_app
from diffusion_core.net.state_files import EngineState, StateFiles
from diffusion_core.threads import bound_spinning
from diffusion_core.version import package_version

if TYPE_CHECKING:
    from starlette.types import ASGIApp

SHUTDOWN_GRACE_S = 3  # uvicorn takes whole seconds
_BACKLOG = 128
COSTS_FILE = "costs.json"  # what forwards cost on this machine; beside the state files of engines

logger = logging.getLogger(__name__)


def make_engine(config: EngineConfig) -> StartableEngine:
    """The real engine. Slow: imports torch, but not for a model that is not there.

    Raises:
        CheckpointError: the model is unknown or not downloaded.
    """
    from diffusion_core.checkpoints.store import locate

    locate(config.model)
    bound_spinning()
    from diffusion_core.engine.runner import AsyncEngine

    return AsyncEngine(config, costs_file=state_folder() / COSTS_FILE)


def run_server(
    engine_config: EngineConfig,
    server_config: ServerConfig,
    *,
    state_file: Path | None = None,
    make: Callable[[EngineConfig], StartableEngine] = make_engine,
) -> None:
    """Serve until told to stop (SIGTERM, SIGINT) or idle for ``server_config.idle_exit_s``.

    With ``state_file``, where the server listens and its token are written there while it runs; without, they are
    printed for a person. ``make`` builds the engine, in a thread.

    Raises:
        ConfigError: the address cannot be used, or a setting is wrong.
        UnmaskError: the model could not be loaded; requests that waited for it have been answered with the same.
    """
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    token = resolve_server_token(server_config)
    with _bind(server_config.host, server_config.port) as listener:
        port = listener.getsockname()[1]
        if state_file is None:
            _greet(server_config, port, token)
        engine = DeferredEngine(lambda: make(engine_config))
        activity = Activity()
        app = create_app(engine, server_config, token, activity)
        files = StateFiles(state_file) if state_file else None
        state = EngineState(pid=os.getpid(), port=port, token=token, version=package_version(), started=time.time())
        server = _Server(app, server_config, files, state)
        asyncio.run(_serve(server, listener, engine, activity, server_config.idle_exit_s))


class _Server(uvicorn.Server):
    """uvicorn, with a state file that exists exactly while the server takes connections."""

    def __init__(self, app: ASGIApp, config: ServerConfig, files: StateFiles | None, state: EngineState) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,  # the guard logs requests, without query strings
                lifespan="off",
                server_header=False,
                timeout_keep_alive=int(config.keep_alive_s),
                timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
            )
        )
        self._files = files
        self._state = state

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: uvicorn would raise them again after the shutdown, before our own clean-up."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        if self._files is not None:
            self._files.write_state(self._state)
        logger.info("listening on port %d", self._state.port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Withdraw the state file before the port closes: nobody should come to a closing door."""
        if self._files is not None:
            self._files.remove_state(self._state.pid)
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Shut down gracefully; asked twice, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


async def _serve(
    server: _Server, listener: socket.socket, engine: DeferredEngine, activity: Activity, idle_exit_s: float
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    engine.start()
    loading = asyncio.create_task(_watch_loading(engine, server))
    idling = asyncio.create_task(_watch_idleness(activity, idle_exit_s, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        for watcher in (loading, idling):
            watcher.cancel()
        await asyncio.gather(loading, idling, return_exceptions=True)
        await engine.aclose()
    if not loading.cancelled():
        loading.result()  # raises what kept the model from loading


async def _watch_loading(engine: DeferredEngine, server: _Server) -> None:
    """Stop the server if the model cannot be loaded: a new process can, once the reason is gone."""
    try:
        await engine.wait_until_loaded()
    except BaseException:
        server.should_exit = True
        raise
    logger.info("the model is ready")


async def _watch_idleness(activity: Activity, idle_exit_s: float, server: _Server) -> None:
    while idle_exit_s > 0:
        left_s = idle_exit_s - activity.idle_s
        if left_s <= 0:
            logger.info("idle for %.0f s: stopping", idle_exit_s)
            server.should_exit = True
            return
        await asyncio.sleep(min(max(left_s, 0.05), 30.0))


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise ConfigError(f"server.host is {host!r}, which is no address of this machine: {error.strerror}") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}; choose another with server.host and server.port"
        ) from None


def _greet(config: ServerConfig, port: int, token: str) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    lines = [f"Unmask engine on http://{host}:{port}"]
    if not config.token and not config.token_file:
        lines.append(f"token (new at each start; choose one with server.token_file): {token}")
    sys.stderr.write("\n".join(lines) + "\n")
