"""An engine that is still being built, so that the server listens before torch is even imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from diffusion_core.errors import Closed, ConfigError, EngineError, UnmaskError
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


class StartableEngine(EngineClient, Protocol):
    """An engine that loads its model after construction, in a thread of its own."""

    def start(self) -> None:
        """Begin to load; returns at once."""
        ...


class DeferredEngine:
    """An :class:`EngineClient` around an engine that a slow function makes in a thread.

    Requests wait for the engine; ``health()`` says ``loading`` meanwhile, and ``failed`` if it could not be made.
    """

    def __init__(self, make_engine: Callable[[], StartableEngine]) -> None:
        self._make_engine = make_engine
        self._making: asyncio.Task[StartableEngine] | None = None

    def start(self) -> None:
        """Begin to make the engine; must be called in the event loop."""
        self._making = asyncio.create_task(self._make())

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

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        await (await self._engine()).warm(request)

    async def health(self) -> Health:
        """The state of the engine."""
        if self._making is None or not self._making.done():
            return _make_health("loading")
        try:
            engine = await self._engine()
        except UnmaskError as error:
            return _make_health("failed", str(error))
        return await engine.health()

    async def aclose(self) -> None:
        """Close the engine; one that is still being made is waited for, since a thread cannot be stopped."""
        if self._making is None:
            return
        try:
            engine = await self._engine()
        except UnmaskError:
            return  # it was never made, and whoever asked for it has been told
        await engine.aclose()

    async def wait_until_loaded(self, poll_s: float = 0.1) -> None:
        """Wait until the model can answer.

        Raises:
            UnmaskError: what kept it from loading.
        """
        engine = await self._engine()
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

    async def _engine(self) -> StartableEngine:
        if self._making is None:
            raise Closed("the engine was not started")
        # Shielded: a caller that gives up must not stop the making for the others.
        return await asyncio.shield(self._making)


def _make_health(status: str, notice: str = "") -> Health:
    notices = (notice,) if notice else ()
    return Health(status=status, version=package_version(), device="", dtype="", notices=notices)
