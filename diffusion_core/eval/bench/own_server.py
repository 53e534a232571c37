"""An engine server in a process of its own, for one measurement: the program that the launcher starts for editors."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from diffusion_core.checkpoints.store import locate
from diffusion_core.config import EngineConfig
from diffusion_core.errors import UnmaskError, Unreachable
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.spawn import ENGINE_COMMAND, SpawnedEngine, stop_process
from diffusion_core.net.state_files import StateFiles, resolve_folders
from diffusion_core.requests import CompletionRequest

# If this process is killed, the server must not stay for long.
_IDLE_EXIT_S = 120.0
_POLL_S = 0.01
_LAST_WORDS_S = 5.0
_FIRST_REQUEST = CompletionRequest(prefix="import ", max_tokens=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnServer:
    """A server that is ready. ``first_answer_ms``: from the start of its process to its first answer of a token."""

    url: str
    token: str = field(repr=False)
    first_answer_ms: float


@asynccontextmanager
async def run_own_server(config: EngineConfig, start_timeout_s: float) -> AsyncIterator[OwnServer]:
    """Start it, wait for its first answer, stop it at the end.

    Raises:
        UnmaskError: what kept it from starting or loading; the model is unknown or not downloaded, for instance.
    """
    locate(config.model)
    with tempfile.TemporaryDirectory(prefix="unmask-bench-") as folder:
        files = StateFiles(Path(folder) / "engine.json")
        started = time.perf_counter()
        process = SpawnedEngine(resolve_folders(config), files, _IDLE_EXIT_S, ENGINE_COMMAND)
        try:
            try:
                async with asyncio.timeout(start_timeout_s):
                    server = await _get_first_answer(process, files, started)
            except TimeoutError:
                raise Unreachable(f"the engine server is not ready after {start_timeout_s:g} s") from None
            yield server
        finally:
            await stop_process(process.pid, files)


async def _get_first_answer(process: SpawnedEngine, files: StateFiles, started: float) -> OwnServer:
    while (state := files.read_state()) is None:
        if process.exit_status is not None:
            raise process.explain_exit()
        await asyncio.sleep(_POLL_S)
    url = f"http://127.0.0.1:{state.port}"
    client = HttpEngineClient(url, state.token)
    try:
        await client.complete(_FIRST_REQUEST)  # waits for the model
    except UnmaskError:
        # A process that ends says why, in better words than a broken connection's.
        give_up = time.perf_counter() + _LAST_WORDS_S
        while process.exit_status is None and time.perf_counter() < give_up:  # noqa: ASYNC110 - a process ends
            await asyncio.sleep(_POLL_S)
        if process.exit_status is None:
            raise
        raise process.explain_exit() from None
    finally:
        await client.aclose()
    return OwnServer(url=url, token=state.token, first_answer_ms=(time.perf_counter() - started) * 1000)
