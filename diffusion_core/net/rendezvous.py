"""Finding the shared engine, or starting it when there is none: one engine, however many ask at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from diffusion_core.config import ClientConfig
from diffusion_core.errors import ProtocolMismatch, Unauthorized, UnmaskError, Unreachable
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.spawn import SpawnedEngine, stop_process
from diffusion_core.net.state_files import EngineState, StateFiles, try_lock
from diffusion_core.requests import Health

# Longer than an engine may be busy with something that keeps it from answering a health check.
_HUNG_AFTER_S = 20.0
_POLL_S = 0.02

# The exit status of an engine process that found another one running (see engine_process).
_ANOTHER_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Found:
    """A running engine, a connection to it and how it was when found."""

    state: EngineState
    client: HttpEngineClient
    health: Health


class Rendezvous:
    """The meeting point of all clients of one engine configuration: a folder with a state file and locks."""

    def __init__(self, config: ClientConfig, files: StateFiles, command: Sequence[str]) -> None:
        self._config = config
        self._files = files
        self._command = command

    async def find(self) -> Found | None:
        """The running engine, if it answers. Starts nothing, stops nothing."""
        state = self._files.read_state()
        if state is None:
            return None
        return await self._probe(state, self._config.connect_timeout_s)

    async def find_or_start(self, on_start: Callable[[], None]) -> Found:
        """The running engine, or a new one; ``on_start`` is called before one is started.

        Raises:
            UnmaskError: what kept a new engine from listening.
        """
        self._files.prepare_folder()
        give_up = time.monotonic() + self._config.engine_start_timeout_s
        if found := await self.find():
            return found
        async with self._start_lock(give_up):
            if found := await self._find_or_clear():
                return found
            on_start()
            return await self._start(give_up)

    async def is_alive(self, state: EngineState) -> bool:
        """Whether the engine process with this state still lives, whatever became of a connection to it."""
        return self._files.read_state() == state and await self._is_surely_owned()

    async def stop(self) -> bool:
        """Stop the running engine; whether there was one."""
        self._files.prepare_folder()
        give_up = time.monotonic() + self._config.engine_start_timeout_s
        async with self._start_lock(give_up):
            while (state := self._files.read_state()) is None and await self._is_surely_owned():
                if time.monotonic() > give_up:
                    raise Unreachable(f"an engine process is starting and does not listen: see {self._files.log}")
                await asyncio.sleep(_POLL_S)  # its starter has left, and it will listen in a moment
            if state is None or not await self.is_alive(state):
                return False
            await stop_process(state.pid, self._files)
            return True

    async def _find_or_clear(self) -> Found | None:
        """The running engine; what is left of a dead one is removed, and a hung one is stopped."""
        state = self._files.read_state()
        if state is None:
            return None
        if found := await self._probe(state, _HUNG_AFTER_S):
            return found
        if await self.is_alive(state):
            await stop_process(state.pid, self._files)
        self._files.remove_state(state.pid)
        return None

    async def _start(self, give_up: float) -> Found:
        engine = self._spawn()
        while time.monotonic() < give_up:
            # The state file appears when the engine listens; it may be that of another engine which was quicker.
            if found := await self.find():
                return found
            if engine.exit_status == _ANOTHER_RUNS:
                engine = self._spawn()
            elif engine.exit_status is not None:
                raise engine.explain_exit()
            await asyncio.sleep(_POLL_S)
        engine.kill()
        raise Unreachable(
            f"the engine does not listen after {self._config.engine_start_timeout_s:g} s "
            f"(client.engine_start_timeout_s): see {self._files.log}"
        )

    def _spawn(self) -> SpawnedEngine:
        return SpawnedEngine(self._config.engine, self._files, self._config.engine_idle_exit_s, self._command)

    async def _probe(self, state: EngineState, timeout_s: float) -> Found | None:
        client = HttpEngineClient(
            f"http://127.0.0.1:{state.port}",
            state.token,
            connect_timeout_s=self._config.connect_timeout_s,
            request_timeout_s=self._config.request_timeout_s,
            health_timeout_s=_HUNG_AFTER_S,
        )
        try:
            async with asyncio.timeout(timeout_s):
                return Found(state=state, client=client, health=await client.health())
        except (Unreachable, Unauthorized, ProtocolMismatch, TimeoutError):
            await client.aclose()  # dead, hung, or its port now belongs to something else
            return None
        except (UnmaskError, asyncio.CancelledError):
            await client.aclose()
            raise

    async def _is_surely_owned(self) -> bool:
        # Another client's look at the lock holds it for an instant: two looks tell the difference.
        if not self._files.is_owned():
            return False
        await asyncio.sleep(_POLL_S)
        return self._files.is_owned()

    @asynccontextmanager
    async def _start_lock(self, give_up: float) -> AsyncIterator[None]:
        while (lock := try_lock(self._files.start_lock)) is None:
            if time.monotonic() > give_up:
                raise Unreachable("another program has been starting the engine for too long")
            await asyncio.sleep(_POLL_S)
        try:
            yield
        finally:
            lock.release()
