"""An engine server in a process of its own, for one measurement: the program that the launcher starts for editors."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from diffusion_core.checkpoints.store import locate
from diffusion_core.config import EngineConfig
from diffusion_core.errors import UnmaskError, Unreachable
from diffusion_core.eval.ask import wait_ready
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.spawn import ENGINE_COMMAND, SpawnedEngine, stop_process
from diffusion_core.net.state_files import EngineState, StateFiles, resolve_folders

# If this process is killed, the server must not stay for long.
_IDLE_EXIT_S = 120.0
_POLL_S = 0.05


@asynccontextmanager
async def run_own_server(config: EngineConfig, start_timeout_s: float) -> AsyncIterator[EngineState]:
    """Start it, wait until its model is loaded, stop it at the end. Yields where it listens, and its token.

    Raises:
        UnmaskError: what kept it from starting or loading; the model is unknown or not downloaded, for instance.
    """
    locate(config.model)
    with tempfile.TemporaryDirectory(prefix="unmask-bench-") as folder:
        files = StateFiles(Path(folder) / "engine.json")
        process = SpawnedEngine(resolve_folders(config), files, _IDLE_EXIT_S, ENGINE_COMMAND)
        try:
            yield await _wait_until_ready(process, files, start_timeout_s)
        finally:
            await stop_process(process.pid, files)


async def _wait_until_ready(process: SpawnedEngine, files: StateFiles, timeout_s: float) -> EngineState:
    try:
        async with asyncio.timeout(timeout_s):
            return await _watch(process, files)
    except TimeoutError:
        raise Unreachable(f"the engine server is not ready after {timeout_s:g} s") from None


async def _watch(process: SpawnedEngine, files: StateFiles) -> EngineState:
    while (state := files.read_state()) is None:
        if process.exit_status is not None:
            raise process.explain_exit()
        await asyncio.sleep(_POLL_S)
    client = HttpEngineClient(f"http://127.0.0.1:{state.port}", state.token)
    try:
        await wait_ready(client)
    except UnmaskError:
        # Its own words say more than a broken connection.
        while process.exit_status is None:  # noqa: ASYNC110 - another process is ending
            await asyncio.sleep(_POLL_S)
        raise process.explain_exit() from None
    finally:
        await client.aclose()
    return state
