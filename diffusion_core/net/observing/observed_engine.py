"""The engine as the routes see it: what it answers is noted with the request that asked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from diffusion_core.callers import OWNER, Caller, ServesCallers
from diffusion_core.chat import ChatRequest, stream_from
from diffusion_core.engine.counters import EngineCounters
from diffusion_core.errors import UnmaskError
from diffusion_core.net.observing.engine_state import CountsWork
from diffusion_core.net.observing.observation import CURRENT, Observation
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

F = TypeVar("F", PreviewFrame, TraceFrame)


class ObservedCalls:
    """Requests of one user. ``under_way`` counts those of all users that the engine has not answered yet."""

    def __init__(self, engine: EngineClient, user: str, under_way: Counter[str]) -> None:
        self._engine, self._user, self._under_way = engine, user, under_way

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        with self._noting("complete") as (observation, began_ns):
            result = await self._engine.complete(request)
            observation.note_result("complete", began_ns, result)
        return result

    def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result."""
        return self._note_items("edit", self._engine.edit(request))

    def stream(self, request: CompletionRequest | ChatRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream the settled text as it grows, then the result."""
        task = "complete" if isinstance(request, CompletionRequest) else "edit"
        return self._note_items(task, stream_from(self._engine, request))

    def watch(self, request: CompletionRequest | EditRequest) -> AsyncGenerator[TraceFrame | Result, None]:
        """Stream what every forward did, then the result."""
        task = "edit" if isinstance(request, EditRequest) else "complete"
        return self._note_items(task, watch(self._engine, request))

    async def _note_items(self, task: str, items: AsyncIterator[F | Result]) -> AsyncGenerator[F | Result, None]:
        with self._noting(task) as (observation, began_ns):
            try:
                async for item in items:
                    if isinstance(item, Result):
                        # Before it is handed on: whoever has the result need not ask for more.
                        observation.note_result(task, began_ns, item)
                    yield item
            finally:
                if isinstance(items, AsyncGenerator):
                    await items.aclose()

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        with self._noting("warm") as (observation, began_ns):
            await self._engine.warm(request)
            observation.note_result("warm", began_ns, None)

    async def health(self) -> Health:
        """The state of the engine."""
        return await self._engine.health()

    async def aclose(self) -> None:
        """Nothing: the engine belongs to others too."""

    @contextmanager
    def _noting(self, task: str) -> Iterator[tuple[Observation, int]]:
        # Outside a request (a test, a program) there is nobody to tell, and it is noted all the same.
        observation = CURRENT.get() or Observation(request_id="")
        observation.task, observation.user = task, self._user
        num_answers = len(observation.answers)
        self._under_way[self._user] += 1
        try:
            yield observation, time.time_ns()
        except (asyncio.CancelledError, GeneratorExit):
            observation.was_cancelled |= len(observation.answers) == num_answers
            raise
        except UnmaskError as error:
            observation.code = error.code
            raise
        finally:
            self._under_way[self._user] -= 1
            if not self._under_way[self._user]:
                del self._under_way[self._user]


class ObservedEngine(ObservedCalls):
    """Any engine; one that tells callers apart still does."""

    def __init__(self, engine: EngineClient) -> None:
        super().__init__(engine, OWNER.user, Counter())

    @property
    def under_way(self) -> Counter[str]:
        """Calls that are not answered yet, by user."""
        return self._under_way

    def counters(self) -> EngineCounters | None:
        """What the engine counts, if it does."""
        return self._engine.counters() if isinstance(self._engine, CountsWork) else None

    def on_behalf_of(self, caller: Caller) -> ObservedCalls:
        """The same engine for requests of ``caller``."""
        engine = self._engine.on_behalf_of(caller) if isinstance(self._engine, ServesCallers) else self._engine
        return ObservedCalls(engine, caller.user, self._under_way)
