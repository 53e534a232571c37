"""The engine behind asyncio: an :class:`~diffusion_core.requests.EngineClient` in this very process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Generic, TypeVar

from diffusion_core.callers import OWNER, Caller
from diffusion_core.chat import ChatRequest
from diffusion_core.config import EngineConfig
from diffusion_core.engine.counters import EngineCounters
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.job import Job
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest
from diffusion_core.trace import TraceFrame

F = TypeVar("F", PreviewFrame, TraceFrame)

_MAX_WAITING_FRAMES = 64


class _Frames(Generic[F]):
    """Frames from the engine's thread to an event loop; None is the end.

    Where each says all that the earlier ones said, a reader that is slow ``may_skip`` some of them.
    """

    def __init__(self, *, may_skip: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._may_skip = may_skip
        self._waiting: deque[F | None] = deque()
        self._arrived = asyncio.Event()

    def put(self, frame: F | None) -> None:
        """From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._add, frame)

    async def get(self) -> F | None:
        """The next one."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def _add(self, frame: F | None) -> None:
        if self._may_skip and len(self._waiting) >= _MAX_WAITING_FRAMES:
            self._waiting.pop()
        self._waiting.append(frame)
        self._arrived.set()


class EngineCalls:
    """Requests of one caller to an engine. Cancelling an awaiting task cancels its request between two forwards."""

    def __init__(self, engine: Engine, caller: Caller) -> None:
        self._engine, self._caller = engine, caller

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        return await self._wait(self._engine.submit(request, caller=self._caller))

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        await self._wait(self._engine.submit(request, caller=self._caller))

    async def edit(self, request: EditRequest) -> AsyncIterator[PreviewFrame | Result]:
        """Stream preview frames, then the result. Closing the iterator early cancels the request."""
        async with aclosing(self._preview(request)) as items:
            async for item in items:
                yield item

    async def stream(self, request: CompletionRequest | ChatRequest) -> AsyncIterator[PreviewFrame | Result]:
        """Stream the settled text as it grows, then the result. Closing the iterator early cancels the request."""
        async with aclosing(self._preview(request)) as items:
            async for item in items:
                yield item

    async def watch(self, request: CompletionRequest | EditRequest) -> AsyncIterator[TraceFrame | Result]:
        """Stream what every forward did, then the result. Closing the iterator early cancels the request."""
        frames = _Frames[TraceFrame]()
        job = self._engine.submit(request, on_trace=frames.put, caller=self._caller)
        async with aclosing(self._follow(job, frames)) as items:
            async for item in items:
                yield item

    def _preview(
        self, request: CompletionRequest | EditRequest | ChatRequest
    ) -> AsyncGenerator[PreviewFrame | Result, None]:
        frames = _Frames[PreviewFrame](may_skip=True)
        return self._follow(self._engine.submit(request, on_frame=frames.put, caller=self._caller), frames)

    async def _follow(self, job: Job, frames: _Frames[F]) -> AsyncGenerator[F | Result, None]:
        job.future.add_done_callback(lambda _: frames.put(None))
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

    async def aclose(self) -> None:
        """Nothing: the engine belongs to others too."""

    async def _wait(self, job: Job) -> Result:
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            self._engine.cancel(job)
            raise


class AsyncEngine(EngineCalls):
    """Runs an :class:`Engine`; asked without a caller, it answers its owner."""

    def __init__(self, config: EngineConfig, *, costs_file: Path | None = None) -> None:
        super().__init__(Engine(config, costs_file=costs_file), OWNER)

    def start(self) -> None:
        """Begin to load the model; requests made meanwhile wait for it."""
        self._engine.start()

    def on_behalf_of(self, caller: Caller) -> EngineCalls:
        """The same engine for requests of ``caller``."""
        return EngineCalls(self._engine, caller)

    async def reload(self, name: str) -> None:
        """Replace a served model by what its checkpoint is now, without a failed request.

        Raises:
            UnmaskError: why the new checkpoint was refused; the old one goes on answering.
        """
        await asyncio.shield(asyncio.wrap_future(self._engine.reload(name)))

    def counters(self) -> EngineCounters:
        """What the engine has done and is doing; cheap."""
        return self._engine.counters()

    def loaded_models(self) -> list[LoadedModel]:
        """All models that are ready: to be looked at, and to be used only when the engine is closed."""
        return self._engine.loaded_models()

    async def aclose(self) -> None:
        """Stop the engine after the running forward."""
        await asyncio.to_thread(self._engine.close)
