"""What the engine reads before it is asked: the text around a place where a request is expected.

A warm-up never delays a request: the engine takes it last and ends it when a request comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from diffusion_core.errors import UnmaskError
from diffusion_core.requests import CompletionRequest, EngineClient, WarmRequest

logger = logging.getLogger(__name__)

# After a suggestion was sent: the user is reading it, and a request of the next key would have come.
AHEAD_DELAY_S = 0.25


class WarmUps:
    """At most one warm-up at a time, and at most one that is planned."""

    def __init__(self) -> None:
        self._running: asyncio.Task[None] | None = None
        self._planned: asyncio.TimerHandle | None = None
        self._last: tuple[str, str] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the engine is reading ahead."""
        return self._running is not None and not self._running.done()

    def start(self, client: EngineClient, request: CompletionRequest) -> None:
        """Let the engine read the prompt of ``request``; an earlier warm-up ends."""
        self.cancel_plan()
        request = replace(request, deadline_ms=0, last_suggestion="", num_alternatives=0)
        self._last = (request.prefix, request.suffix)

        async def warm() -> None:
            try:
                await client.warm(WarmRequest(completion=request))
            except UnmaskError as error:
                logger.info("warm-up %s: %s", request.id, type(error).__name__)

        if self._running is not None:
            self._running.cancel()
        self._running = asyncio.create_task(warm())

    def plan(self, delay_s: float, make: Callable[[], tuple[EngineClient, CompletionRequest] | None]) -> None:
        """Start what ``make`` gives after a while, unless something else comes; the same text is not read twice."""
        self.cancel_plan()

        def begin() -> None:
            self._planned = None
            made = make()
            if made is not None and (made[1].prefix, made[1].suffix) != self._last:
                self.start(*made)

        self._planned = asyncio.get_running_loop().call_later(delay_s, begin)

    def cancel_plan(self) -> None:
        """Something else came."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None

    def aclose(self) -> None:
        """Stop everything."""
        self.cancel_plan()
        if self._running is not None:
            self._running.cancel()
