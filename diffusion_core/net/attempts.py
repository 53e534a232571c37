"""When a request that failed may be sent again: a few times, further and further apart, and within its deadline.

Sending a request twice does no harm: an answer depends on nothing but the request, and the engine keeps nothing of it
but cached prompts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from diffusion_core.errors import DeadlineExceeded, Overloaded, RateLimited, UnmaskError, Unreachable

# A server with too much to do gets the same request so often again; who is away, as often as the caller allows.
_MAX_AFTER_REFUSAL = 2
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 2.0
# A server that asks to wait for longer than this is believed at once: who asked shall know, not wait.
_MAX_WAIT_S = 5.0
# The engine answers a deadline with what it has; only an answer that is this late is given up.
_GRACE_S = 2.0


class Attempts:
    """The attempts at one request, counted from its construction on."""

    def __init__(
        self,
        deadline_ms: int,
        max_attempts: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._draw = clock, draw
        self._num_left = max_attempts - 1
        self._num_refusals_left = _MAX_AFTER_REFUSAL
        self._ends = clock() + deadline_ms / 1000 if deadline_ms else None
        self._pause_s = _FIRST_PAUSE_S

    @property
    def left_ms(self) -> int:
        """What is left of the deadline in milliseconds, at least 1; 0: there is no deadline."""
        return 0 if self._ends is None else max(1, round(1000 * (self._ends - self._clock())))

    @asynccontextmanager
    async def bounded(self, address: str) -> AsyncIterator[None]:
        """Waits no longer than the deadline and a grace.

        Raises:
            Unreachable: that was too long: what should have answered by the deadline is silent.
        """
        limit_s = None if self._ends is None else max(0.0, self._ends - self._clock()) + _GRACE_S
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise Unreachable(f"{address} did not answer by the deadline of the request") from None

    def go_elsewhere(self, error: UnmaskError) -> None:
        """Count an attempt that is made at once, at another address.

        Raises:
            UnmaskError: ``error`` itself, if there have been enough.
        """
        if self._num_left <= 0 or (self._ends is not None and self._clock() >= self._ends):
            raise error
        self._num_left -= 1

    async def pause_after(self, error: UnmaskError) -> None:
        """Wait until the request may be sent again.

        Raises:
            UnmaskError: ``error`` itself, at once, if the request may not be sent again or not before its deadline.
        """
        pause_s = self._next_pause_s(error)
        if isinstance(error, Overloaded | RateLimited):
            self._num_refusals_left -= 1
        is_late = self._ends is not None and self._clock() + pause_s >= self._ends
        is_late = is_late or error.retry_after_s > _MAX_WAIT_S
        is_spent = self._num_left <= 0 or self._num_refusals_left < 0
        if not error.retryable or isinstance(error, DeadlineExceeded) or is_spent or is_late:
            raise error
        self._num_left -= 1
        await asyncio.sleep(pause_s)

    def _next_pause_s(self, error: UnmaskError) -> float:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _MAX_PAUSE_S)
        # Clients that lost the same server come back one by one, not all in the same moment.
        return max(pause_s, error.retry_after_s) * (1 + self._draw() / 2)
