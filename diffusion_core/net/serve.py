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
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

from diffusion_core.config import EngineConfig, ServerConfig, state_folder
from diffusion_core.errors import ConfigError
from diffusion_core.native import prepare_libraries
from diffusion_core.net.activity import Activity
from diffusion_core.net.auth import Authenticator, resolve_server_token
from diffusion_core.net.certificates import Certificate
from diffusion_core.net.client import is_loopback
from diffusion_core.net.deferred import DeferredEngine, StartableEngine
from diffusion_core.net.http_server import HttpServer
from diffusion_core.net.observing.logs import configure_logging, log_loop_errors
from diffusion_core.net.observing.observatory import Observatory
from diffusion_core.net.quiet_logs import describe_exception
from diffusion_core.net.reloads import Reloads
from diffusion_core.net.server import create_app
from diffusion_core.net.state_files import EngineState, StateFiles
from diffusion_core.version import package_version

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
    prepare_libraries()
    from diffusion_core.engine.runner import AsyncEngine

    return AsyncEngine(config, costs_file=state_folder() / COSTS_FILE)


def check_server(engine_config: EngineConfig, server_config: ServerConfig) -> None:
    """Look at everything that a start would trip over, without torch and without a socket.

    Raises:
        ConfigError, CheckpointError: what cannot be used.
    """
    from diffusion_core.checkpoints.store import locate

    if server_config.users == "single":
        resolve_server_token(server_config)
    load_certificate(server_config)
    _warn_of_open_doors(server_config)
    locate(engine_config.model)
    if engine_config.edit_model != "auto":
        locate(engine_config.edit_model)


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
        configure_logging(server_config.log_format, server_config.log_level)
    certificate = load_certificate(server_config)
    _warn_of_open_doors(server_config)
    assert state_file is None or server_config.users == "single", "a local engine has one user"
    with _bind(server_config.host, server_config.port) as listener, _open_access(server_config) as (access, remarks):
        port = listener.getsockname()[1]
        token = access if isinstance(access, str) else ""
        if state_file is None:
            _greet(server_config, port, remarks)
        engine = DeferredEngine(lambda: make(engine_config))
        activity = Activity()
        observatory = Observatory(engine, server_config)
        app = create_app(engine, server_config, access, activity, observatory)
        files = StateFiles(state_file) if state_file else None
        state = EngineState(pid=os.getpid(), port=port, token=token, version=package_version(), started=time.time())
        server = HttpServer(app, server_config, activity, certificate=certificate, files=files, state=state)
        idling = _watch_idleness(activity, server_config.idle_exit_s, server)
        reloads = Reloads(server_config, certificate, app.state.model_reloads, follows_hangup=not _has_terminal())
        try:
            asyncio.run(_serve(server, listener, engine, idling, reloads.run(), observatory.watch()))
        finally:
            observatory.close()


async def _serve(
    server: HttpServer, listener: socket.socket, engine: DeferredEngine, *background: Coroutine[None, None, None]
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_errors)
    for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if _has_terminal() else [])):
        loop.add_signal_handler(number, server.stop)
    engine.start()
    loading = asyncio.create_task(_watch_loading(engine, server))
    watchers = [asyncio.create_task(watcher) for watcher in background]
    for watcher in watchers:
        watcher.add_done_callback(_tell_failure)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in (loading, *watchers):
            task.cancel()
        await asyncio.gather(loading, *watchers, return_exceptions=True)
        await engine.aclose()
    if not loading.cancelled():
        loading.result()  # raises what kept the model from loading


def _has_terminal() -> bool:
    """Whether a person runs the server: to close the terminal sends SIGHUP too, and there it means stop."""
    return hasattr(signal, "SIGHUP") and sys.stdin is not None and sys.stdin.isatty()


def _tell_failure(watcher: asyncio.Task[None]) -> None:
    """The server goes on without what only watched, but not in silence."""
    if not watcher.cancelled() and (error := watcher.exception()) is not None:
        logger.error("a part of the server failed: %s", describe_exception(error))


async def _watch_loading(engine: DeferredEngine, server: HttpServer) -> None:
    """Stop the server if the model cannot be loaded: a new process can, once the reason is gone."""
    try:
        await engine.wait_until_loaded()
    except BaseException:
        server.should_exit = True
        raise
    logger.info("the model is ready")


async def _watch_idleness(activity: Activity, idle_exit_s: float, server: HttpServer) -> None:
    while idle_exit_s > 0:
        left_s = idle_exit_s - activity.idle_s
        if left_s <= 0:
            logger.info("idle for %.0f s: stopping", idle_exit_s)
            server.stop()
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


@contextlib.contextmanager
def _open_access(config: ServerConfig) -> Iterator[tuple[str | Authenticator, list[str]]]:
    """Who may use the server, and what a person has to know about it."""
    if config.users == "single":
        token = resolve_server_token(config)
        is_new = not config.token and not config.token_file
        yield token, [f"token (new at each start; choose one with server.token_file): {token}"] if is_new else []
        return
    try:
        from diffusion_core.net.access import describe_access, open_access
    except ImportError as error:
        raise ConfigError(f"server.users = database needs {error.name}: pip install 'unmask[team]'") from None
    with open_access(config) as access:
        yield access, describe_access(access)


def load_certificate(config: ServerConfig) -> Certificate | None:
    """The server's certificate, if it has one.

    Raises:
        ConfigError: it cannot be used.
    """
    return Certificate(config.tls_certificate, config.tls_key) if config.tls_certificate else None


def _warn_of_open_doors(config: ServerConfig) -> None:
    if not is_loopback(config.host) and not config.tls_certificate and not config.behind_proxy:
        logger.warning(
            "server.host is %s and nothing is encrypted: tokens and code can be read on the way. Set "
            "server.tls_certificate and server.tls_key, or server.behind_proxy if something before this server does it",
            config.host,
        )


def _greet(config: ServerConfig, port: int, remarks: list[str]) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "https" if config.tls_certificate else "http"
    sys.stderr.write("\n".join([f"Unmask engine on {scheme}://{host}:{port}", *remarks]) + "\n")
