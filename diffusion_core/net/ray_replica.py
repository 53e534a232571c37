"""One replica of the engine: an actor of Ray Serve with a model of its own.

What it answers are messages of the wire protocol, errors among them: an exception would be logged by Ray with a
traceback, and what it says may not leave this process unseen.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from ray import serve

from diffusion_core.callers import Caller
from diffusion_core.config import EngineConfig
from diffusion_core.errors import EngineError, UnmaskError
from diffusion_core.net.deferred import DeferredEngine
from diffusion_core.net.protocol import WarmDone, WireError
from diffusion_core.net.quiet_logs import describe_exception
from diffusion_core.net.serve import make_engine
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest

T = TypeVar("T")

logger = logging.getLogger(__name__)


class EngineReplica:
    """Ray constructs it, and counts it as running once its model is loaded. ``key`` is for the router alone."""

    async def __init__(self, config: EngineConfig) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        self._engine = DeferredEngine(lambda: make_engine(config))
        self._engine.start()
        await self._engine.wait_until_loaded()

    async def complete(self, request: CompletionRequest, caller: Caller, key: str) -> Result | WireError:
        """Answer a completion."""
        return await _as_message(self._engine.on_behalf_of(caller).complete(request))

    async def edit(
        self, request: EditRequest, caller: Caller, key: str
    ) -> AsyncGenerator[PreviewFrame | Result | WireError, None]:
        """Stream preview frames, then the result or what went wrong."""
        try:
            async with aclosing(self._engine.on_behalf_of(caller).edit(request)) as items:
                async for item in items:
                    yield item
        except UnmaskError as error:
            yield WireError.of(error)

    async def warm(self, request: WarmRequest, caller: Caller, key: str) -> WarmDone | WireError:
        """Compute the prompt of an expected request."""
        warmed = await _as_message(self._engine.on_behalf_of(caller).warm(request))
        return warmed if isinstance(warmed, WireError) else WarmDone()

    async def health(self, key: str) -> tuple[str, Health | WireError]:
        """The name of this replica and the state of its engine."""
        return serve.get_replica_context().replica_id.unique_id, await _as_message(self._engine.health())

    async def reload(self, name: str, key: str) -> WarmDone | WireError:
        """Replace a model by what its checkpoint is now."""
        reloaded = await _as_message(self._engine.reload(name))
        return reloaded if isinstance(reloaded, WireError) else WarmDone()

    async def check_health(self) -> None:
        """Ray asks this; an exception makes it start another replica in place of this one."""
        health = await self._engine.health()
        if health.status == "failed":
            raise RuntimeError("the engine failed")

    async def __del__(self) -> None:
        """Ray awaits this when what was begun is done, or the time for it is over."""
        await self._engine.aclose()


async def _as_message(work: Awaitable[T]) -> T | WireError:
    try:
        return await work
    except UnmaskError as error:
        return WireError.of(error)
    except Exception as error:  # nothing of a request may reach Ray's logs
        logger.error("a request failed unexpectedly: %s", describe_exception(error))
        return WireError.of(EngineError("internal error: the log of the replica has more"))
