"""Keeping the limits of users: how many requests a minute, and how many at once. One process, one event loop.

Requests a minute are a bucket of so many requests that fills again evenly, so a burst after a pause is fine. A warm-up
is the editor's own idea: it counts a quarter, has places of its own, and leaves the last quarter of the bucket to what
the user asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from diffusion_core.callers import Caller, Limits
from diffusion_core.errors import RateLimited

_WARM_UP_COST = 0.25
_WARM_UP_RESERVE = 0.25
# When a place will be free is not known: the request that holds it may be ghost text or a long edit.
_PLACE_RETRY_S = 1.0
_MINUTE_S = 60.0
_ROUNDING = 1e-9


class Kind(Enum):
    """What a request costs its user."""

    REQUEST = "request"
    WARM_UP = "warm-up"
    FREE = "free"  # health, figures, administration


@dataclass(slots=True)
class _Use:
    """What one user has left and under way."""

    filled_at: float  # seconds
    fullness: float = 1.0  # of the bucket, so that another limit needs no conversion
    num_requests: int = 0
    num_warm_ups: int = 0

    def fill(self, at: float) -> None:
        self.fullness = min(1.0, self.fullness + (at - self.filled_at) / _MINUTE_S)
        self.filled_at = at


class Quotas:
    """Who has how much left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def admit(self, caller: Caller, kind: Kind) -> Iterator[None]:
        """Let a request in and hold its place until it ends, however it ends.

        Raises:
            RateLimited: the caller has no place or no request left; it says when there will be.
        """
        limits = caller.limits
        if kind is Kind.FREE or not (limits.requests_per_minute or limits.requests_at_once):
            yield
            return
        use = self._uses.setdefault(caller.user, _Use(self._clock()))
        self._take(use, limits, kind)
        name = "num_requests" if kind is Kind.REQUEST else "num_warm_ups"
        setattr(use, name, getattr(use, name) + 1)
        try:
            yield
        finally:
            setattr(use, name, getattr(use, name) - 1)

    def _take(self, use: _Use, limits: Limits, kind: Kind) -> None:
        at_once = limits.requests_at_once
        if at_once and (use.num_requests if kind is Kind.REQUEST else use.num_warm_ups) >= at_once:
            raise RateLimited(
                f"{at_once} requests of yours are under way, which is your limit: wait for one to end",
                retry_after_s=_PLACE_RETRY_S,
            )
        per_minute = limits.requests_per_minute
        if not per_minute:
            return
        use.fill(self._clock())
        cost = (_WARM_UP_COST if kind is Kind.WARM_UP else 1.0) / per_minute
        # A limit so low that a warm-up would never be let in lets it in when nothing else was asked for.
        needed = min(1.0, cost + _WARM_UP_RESERVE) if kind is Kind.WARM_UP else cost
        if use.fullness < needed - _ROUNDING:
            wait_s = (needed - use.fullness) * _MINUTE_S
            raise RateLimited(
                f"your limit is {per_minute} requests a minute: try again in {max(wait_s, 0.1):.1f} s",
                retry_after_s=wait_s,
            )
        use.fullness -= cost
