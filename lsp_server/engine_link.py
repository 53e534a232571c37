"""The server's connection to its engine: opened in the background, watched, opened again.

``client`` is there once the engine has said that it is ready. Until then, and after it was lost, automatic requests
are answered with nothing, and the status says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import TYPE_CHECKING

from diffusion_core.errors import Closed, Forbidden, TransportError, UnmaskError
from lsp_server.reporting import Kind, Status, internal_error, status_of_error
from lsp_server.status_board import StatusBoard

if TYPE_CHECKING:
    from diffusion_core.config import ClientConfig
    from diffusion_core.requests import EngineClient, Health

logger = logging.getLogger(__name__)

# Hears ``local`` and why when a local engine stands in for the remote one, and ``remote`` when it does no more.
OnState = Callable[[str, str], None]
Connect = Callable[["ClientConfig", OnState], Awaitable["EngineClient"]]
LOADING_POLL_S = 0.2
RETRY_S = 0.5
MAX_RETRY_S = 3.0
READY_POLL_S = 30.0


class EngineLink:
    """Owns the engine client and the task that watches it."""

    def __init__(self, board: StatusBoard, connect: Connect) -> None:
        self._board = board
        self._connect = connect
        self._config: ClientConfig | None = None
        self._client: EngineClient | None = None
        self._ready = asyncio.Event()
        self._look_again = asyncio.Event()
        self._failure: UnmaskError | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def client(self) -> EngineClient | None:
        """The engine if it is ready."""
        return self._client if self._ready.is_set() else None

    @property
    def config(self) -> ClientConfig | None:
        """What the link was started with."""
        return self._config

    def start(self, config: ClientConfig) -> None:
        """Connect in the background."""
        self._config = config
        self._task = asyncio.create_task(self._watch(config))

    async def restart(self, config: ClientConfig) -> None:
        """Close the connection and open another one."""
        await self.aclose()
        self.start(config)

    def report(self, error: UnmaskError) -> None:
        """A request failed: the status says so; a lost connection is looked at again at once."""
        self._board.set_engine(status_of_error(error))
        if isinstance(error, (TransportError, Closed)) and not isinstance(error, Forbidden):
            self._ready.clear()
            self._failure = error
            self._look_again.set()

    async def wait_ready(self) -> EngineClient:
        """The engine as soon as it is ready: waits while it loads.

        Raises:
            UnmaskError: it cannot be reached or cannot load; the state it is in.
        """
        while not self._ready.is_set():
            if self._failure is not None:
                raise self._failure
            await asyncio.sleep(LOADING_POLL_S / 2)
        assert self._client is not None
        return self._client

    async def stop_local(self) -> None:
        """Stop the shared local engine if that is what we are connected to.

        Raises:
            UnmaskError: it does not stop.
        """
        from diffusion_core.net.failover import FailoverEngine
        from diffusion_core.net.launcher import LocalEngine

        if isinstance(self._client, LocalEngine):
            await self._client.stop()
        elif isinstance(self._client, FailoverEngine):
            await self._client.stop_local()

    async def aclose(self) -> None:
        """Stop watching and release the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._ready.clear()
        self._failure = None
        self._board.set_detour("")
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.aclose()
            except UnmaskError as error:
                logger.info("closing the engine client: %s", type(error).__name__)

    async def _watch(self, config: ClientConfig) -> None:
        self._board.set_engine(Status(kind=Kind.BUSY, reason="connecting", message=_connecting(config)))
        delay = RETRY_S
        while True:
            self._look_again.clear()
            try:
                if self._client is None:
                    self._client = await self._connect(config, self._hear)
                pause = self._note_health(await self._client.health())
                delay = RETRY_S
            except UnmaskError as error:
                pause, delay = delay, min(2 * delay, MAX_RETRY_S)
                self._fail(error)
            except Exception as error:  # a bug in a client must not end the watch silently
                internal_error(logger, "engine connection", error)
                pause, delay = delay, min(2 * delay, MAX_RETRY_S)
                self._fail(TransportError(f"The engine client failed: {type(error).__name__}. The log says where."))
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Wait; a request that failed on a ready engine ends the wait, one that failed anyway does not."""
        if not self._ready.is_set():
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look_again.wait()

    def _hear(self, state: str, detail: str) -> None:
        """Which engine answers, if there are two; the others of its states are seen in its health."""
        if state in {"local", "remote"}:
            self._board.set_detour(detail)
            self._look_again.set()

    def _fail(self, error: UnmaskError) -> None:
        self._ready.clear()
        self._failure = error
        self._board.set_engine(status_of_error(error))

    def _note_health(self, health: Health) -> float:
        """Take over the engine's own account; the result is the time until the next look, in seconds."""
        model = health.models[0].name if health.models else ""
        notice = " ".join(health.notices)
        if health.status == "ready":
            newly = not self._ready.is_set()
            self._failure = None
            self._ready.set()
            if newly:
                logger.info("engine ready: %s on %s", model, health.device)
                self._board.set_engine(
                    Status(kind=Kind.NORMAL, reason="ready", message=notice or "Ready.", model=model)
                )
            return READY_POLL_S
        self._ready.clear()
        if health.status == "loading":
            self._failure = None
            message = f"Loading model {model}." if model else "Loading the model."
            self._board.set_engine(Status(kind=Kind.BUSY, reason="loading", message=message, model=model))
            return LOADING_POLL_S
        detail = next((found.detail for found in health.models if found.state == "failed" and found.detail), notice)
        self._failure = UnmaskError(f"The engine could not load its model: {detail or 'its log says why'}")
        self._board.set_engine(Status(kind=Kind.ERROR, reason="failed", message=str(self._failure), model=model))
        return MAX_RETRY_S


def _connecting(config: ClientConfig) -> str:
    return f"Connecting to {config.url}." if config.url else "Starting the local engine."


async def connect_lazily(config: ClientConfig, on_state: OnState) -> EngineClient:
    """The real connection. Made in a thread: what is imported for it, and a keyring that has to be unlocked first."""

    def make() -> EngineClient:
        client: EngineClient = import_module("diffusion_core.net.launcher").connect(config, on_state=on_state)
        return client

    return await asyncio.to_thread(make)
