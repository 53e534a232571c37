"""An engine that is still being built, so that the server listens before torch is even imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from diffusion_core.callers import OWNER, Caller, ServesCallers
from diffusion_core.chat import ChatRequest, stream_from
from diffusion_core.engine.counters import EngineCounters
from diffusion_core.errors import Closed, ConfigError, EngineError, InvalidRequest, UnmaskError
from diffusion_core.net.observing.engine_state import CountsWork
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    EngineClient,
    Health,
    PreviewFrame,
    Result,
    WarmRequest,
)
from diffusion_core.trace import TraceFrame, watch
from diffusion_core.version import package_version


class StartableEngine(EngineClient, Protocol):
    """An engine that loads its model after construction, in a thread of its own."""

    def start(self) -> None:
        """Begin to load; returns at once."""
        ...


@runtime_checkable
class ReloadsModels(Protocol):
    """An engine that can take a new checkpoint without a failed request."""

    async def reload(self, name: str) -> None:
        """Replace the model of that name by what its checkpoint is now.

        Raises:
            UnmaskError: why the new checkpoint was refused; the old one goes on answering.
        """
        ...


class DeferredCalls:
    """Requests of one caller to an engine that may still be in the making: they wait for it."""

    def __init__(self, deferred: DeferredEngine, caller: Caller) -> None:
        self._deferred, self._caller = deferred, caller

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        return await (await self._engine()).complete(request)

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result."""
        items = (await self._engine()).edit(request)
        try:
            async for item in items:
                yield item
        finally:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    async def stream(self, request: CompletionRequest | ChatRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream the settled text as it grows, then the result."""
        async with aclosing(stream_from(await self._engine(), request)) as items:
            async for item in items:
                yield item

    async def watch(self, request: CompletionRequest | EditRequest) -> AsyncGenerator[TraceFrame | Result, None]:
        """Stream what every forward did, then the result."""
        async with aclosing(watch(await self._engine(), request)) as items:
            async for item in items:
                yield item

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        await (await self._engine()).warm(request)

    async def health(self) -> Health:
        """The state of the engine."""
        return await self._deferred.health()

    async def aclose(self) -> None:
        """Nothing: the engine belongs to others too."""

    async def _engine(self) -> EngineClient:
        engine = await self._deferred.made()
        return engine.on_behalf_of(self._caller) if isinstance(engine, ServesCallers) else engine


class DeferredEngine(DeferredCalls):
    """An :class:`EngineClient` around an engine that a slow function makes in a thread.

    Requests wait for the engine; ``health()`` says ``loading`` meanwhile, and ``failed`` if it could not be made.
    """

    def __init__(self, make_engine: Callable[[], StartableEngine]) -> None:
        super().__init__(self, OWNER)
        self._make_engine = make_engine
        self._making: asyncio.Task[StartableEngine] | None = None

    def start(self) -> None:
        """Begin to make the engine; must be called in the event loop."""
        self._making = asyncio.create_task(self._make())

    def counters(self) -> EngineCounters | None:
        """What the engine counts; None before there is one, or if it does not."""
        if self._making is None or not self._making.done() or self._making.exception() is not None:
            return None
        engine = self._making.result()
        return engine.counters() if isinstance(engine, CountsWork) else None

    def on_behalf_of(self, caller: Caller) -> DeferredCalls:
        """The same engine for requests of ``caller``."""
        return DeferredCalls(self, caller)

    async def health(self) -> Health:
        """The state of the engine."""
        if self._making is None or not self._making.done():
            return _make_health("loading")
        try:
            engine = await self.made()
        except UnmaskError as error:
            return _make_health("failed", str(error))
        return await engine.health()

    async def reload(self, name: str) -> None:
        """Replace the model of that name by what its checkpoint is now.

        Raises:
            UnmaskError: why the new checkpoint was refused, or the engine itself could not be made.
        """
        engine = await self.made()
        if not isinstance(engine, ReloadsModels):
            raise InvalidRequest("this engine cannot take a new checkpoint: start it again")
        await engine.reload(name)

    async def aclose(self) -> None:
        """Close the engine; one that is still being made is waited for, since a thread cannot be stopped."""
        if self._making is None:
            return
        try:
            engine = await self.made()
        except UnmaskError:
            return  # it was never made, and whoever asked for it has been told
        await engine.aclose()

    async def wait_until_loaded(self, poll_s: float = 0.1) -> None:
        """Wait until the model can answer.

        Raises:
            UnmaskError: what kept it from loading.
        """
        engine = await self.made()
        health = await engine.health()
        while health.status == "loading":
            await asyncio.sleep(poll_s)
            health = await engine.health()
        if health.status == "failed":
            # Only a request tells the class of the error; health has its words alone.
            await engine.complete(CompletionRequest(prefix="\n", max_tokens=1))
            raise EngineError("; ".join(health.notices) or "the engine failed to load its model")

    async def _make(self) -> StartableEngine:
        try:
            engine = await asyncio.to_thread(self._make_engine)
        except UnmaskError:
            raise
        except ImportError as error:
            raise ConfigError(
                f"the engine's libraries are not installed ({error.name}): pip install 'unmask[engine]'"
            ) from None
        engine.start()
        return engine

    async def made(self) -> StartableEngine:
        """The engine itself, when it is there.

        Raises:
            UnmaskError: what kept it from being made.
        """
        if self._making is None:
            raise Closed("the engine was not started")
        # Shielded: a caller that gives up must not stop the making for the others.
        return await asyncio.shield(self._making)


def _make_health(status: str, notice: str = "") -> Health:
    notices = (notice,) if notice else ()
    return Health(status=status, version=package_version(), device="", dtype="", notices=notices)
