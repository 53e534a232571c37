"""The engine behind asyncio: an :class:`~diffusion_core.requests.EngineClient` in this very process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.job import Job
from diffusion_core.engine.models import LoadedModel
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest


class AsyncEngine:
    """Runs an :class:`Engine`. Cancelling an awaiting task cancels its request between two forwards."""

    def __init__(self, config: EngineConfig, *, costs_file: Path | None = None) -> None:
        self._engine = Engine(config, costs_file=costs_file)

    def start(self) -> None:
        """Begin to load the model; requests made meanwhile wait for it."""
        self._engine.start()

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        return await self._wait(self._engine.submit(request))

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        await self._wait(self._engine.submit(request))

    async def edit(self, request: EditRequest) -> AsyncIterator[PreviewFrame | Result]:
        """Stream preview frames, then the result. Closing the iterator early cancels the request."""
        loop = asyncio.get_running_loop()
        frames: asyncio.Queue[PreviewFrame | None] = asyncio.Queue()

        def put(frame: PreviewFrame | None) -> None:
            loop.call_soon_threadsafe(frames.put_nowait, frame)

        job = self._engine.submit(request, on_frame=put)
        job.future.add_done_callback(lambda _: None if loop.is_closed() else put(None))
        try:
            while (frame := await frames.get()) is not None:
                yield frame
            yield job.future.result()
        finally:
            if not job.future.done():
                self._engine.cancel(job)

    async def health(self) -> Health:
        """State of the engine."""
        return self._engine.health()

    def loaded_models(self) -> list[LoadedModel]:
        """All models that are ready: to be looked at, and to be used only when the engine is closed."""
        return self._engine.loaded_models()

    async def aclose(self) -> None:
        """Stop the engine after the running forward."""
        await asyncio.to_thread(self._engine.close)

    async def _wait(self, job: Job) -> Result:
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            self._engine.cancel(job)
            raise
