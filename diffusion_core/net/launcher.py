"""The local engine: one process per user, shared by all editors, started when needed and restarted when it dies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from diffusion_core.config import ClientConfig
from diffusion_core.errors import Unauthorized, Unreachable
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.failover import FailoverEngine
from diffusion_core.net.remote import RemoteEngine
from diffusion_core.net.spawn import ENGINE_COMMAND
from diffusion_core.net.state_files import StateFiles, resolve_folders, resolve_model
from diffusion_core.net.supervisor import OnState, Supervisor
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    EngineClient,
    Health,
    PreviewFrame,
    Result,
    WarmRequest,
)
from diffusion_core.version import package_version

_LOADING = Health(status="loading", version=package_version(), device="", dtype="")
_ASLEEP_NOTICE = "The engine stopped because it was idle; the next request starts it."

T = TypeVar("T")
R = TypeVar("R", CompletionRequest, EditRequest)


def connect(config: ClientConfig, *, on_state: OnState | None = None) -> EngineClient:
    """A client for the engine of ``config``: the one at ``config.url``, or the shared local one, or one for the other.

    Connects with the first request; only a keyring may keep the caller waiting. ``on_state`` hears about the local
    engine, and which of the two answers.

    Raises:
        ConfigError: there is no token for ``config.url``, or the address makes no sense.
    """
    if not config.url:
        return LocalEngine(config, on_state=on_state)
    if config.fallback == "none":
        return RemoteEngine(config)
    return FailoverEngine(
        config, lambda tell: LocalEngine(config, on_state=tell), on_state=on_state or (lambda state, detail: None)
    )


class LocalEngine:
    """An :class:`~diffusion_core.requests.EngineClient` that keeps the shared engine process alive.

    The first call finds or starts the engine. A request that is under way when the engine
    dies fails with :class:`Unreachable`, and a new engine is started at once. Must be used in one event loop.
    ``command`` replaces the program of the engine process.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        on_state: OnState | None = None,
        command: Sequence[str] = ENGINE_COMMAND,
    ) -> None:
        config = replace(config, engine=resolve_folders(config.engine))
        self.files = StateFiles.of(config.engine)
        self._supervisor = Supervisor(config, self.files, command, on_state or (lambda state, detail: None))
        self._last_health: Health | None = None
        self._is_asleep = False

    def __repr__(self) -> str:
        return f"LocalEngine({str(self.files.state)!r})"

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        resolved = _resolve_model(request)
        return await self._call(lambda client: client.complete(resolved))

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result. Leaving early (``aclose``) cancels the work."""
        request = _resolve_model(request)
        for is_last_attempt in (False, True):
            found = await self._supervisor.attach()
            items = found.client.edit(request)
            try:
                async for item in items:
                    yield item
                return
            except (Unreachable, Unauthorized) as error:
                await self._supervisor.give_up_or_retry(found, error, is_last_attempt=is_last_attempt)
            finally:
                await items.aclose()

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        resolved = WarmRequest(
            completion=request.completion and _resolve_model(request.completion),
            edit=request.edit and _resolve_model(request.edit),
        )
        await self._call(lambda client: client.warm(resolved))

    async def health(self) -> Health:
        """The state of the engine; the first call begins to start it, and does not wait for it.

        An engine that stopped because it was idle is reported as ready: the next request starts it, a watcher does
        not, else it could never stop.

        Raises:
            UnmaskError: what kept the engine from starting; the next attempt is made after a while.
        """
        supervisor = self._supervisor
        if (found := supervisor.found) is not None:
            self._is_asleep = False
            try:
                self._last_health = await found.client.health()
            except (Unreachable, Unauthorized):
                if await supervisor.is_alive(found):
                    raise
                if supervisor.is_loading:  # who watches it finds out why it ended, and the next call tells
                    return self._last_health or _LOADING
                if supervisor.found is found:  # else its watcher has just found out why it ended
                    self._is_asleep = self.files.read_state() is None  # a crash leaves the state file behind
                    await supervisor.forget(found)
            else:
                return self._last_health
        if self._is_asleep and self._last_health is not None:
            # What was seen last may be that it was loading.
            return replace(self._last_health, status="ready", num_active=0, memory_bytes=0, notices=(_ASLEEP_NOTICE,))
        if (refusal := supervisor.refusal) is not None:
            raise refusal
        supervisor.begin_attaching()
        return _LOADING

    async def wait_listening(self) -> None:
        """Find or start the engine; return when it takes requests, be its model loaded or not."""
        await self._supervisor.attach()

    async def wait_ready(self) -> None:
        """Find or start the engine; return when its model is loaded.

        Raises:
            UnmaskError: what kept it from starting or loading.
        """
        await self._supervisor.wait_ready()

    async def stop(self) -> bool:
        """Stop the shared engine, for all its clients; whether one was running."""
        return await self._supervisor.stop()

    async def aclose(self) -> None:
        """Close the connections. The engine goes on: others may use it, and it stops by itself when idle."""
        await self._supervisor.aclose()

    async def _call(self, operation: Callable[[HttpEngineClient], Awaitable[T]]) -> T:
        found = await self._supervisor.attach()
        try:
            return await operation(found.client)
        except (Unreachable, Unauthorized) as error:
            await self._supervisor.give_up_or_retry(found, error, is_last_attempt=False)
        found = await self._supervisor.attach()
        try:
            return await operation(found.client)
        except (Unreachable, Unauthorized) as error:
            await self._supervisor.give_up_or_retry(found, error, is_last_attempt=True)
            raise


def _resolve_model(request: R) -> R:
    """The request with its model's folder as the engine process knows it."""
    return replace(request, model=resolve_model(request.model)) if request.model else request
