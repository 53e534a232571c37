"""When a process that keeps failing may be started again."""

from __future__ import annotations

import time
from collections.abc import Callable

_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
_HEALTHY_S = 60.0


class Backoff:
    """The first retry is immediate, then 0.5 s, 1 s, 2 s ... 30 s; a healthy minute forgets all failures."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._num_failures = 0
        self._not_before = 0.0
        self._healthy_since: float | None = None

    @property
    def wait_s(self) -> float:
        """Seconds until the next attempt may be made."""
        return max(0.0, self._not_before - self._clock())

    def note_healthy(self) -> None:
        """The process works."""
        if self._healthy_since is None:
            self._healthy_since = self._clock()

    def note_failure(self, *, is_lasting: bool = False) -> None:
        """The process ended. ``is_lasting``: for a reason that the next attempt will meet again, so never at once."""
        if self._healthy_since is not None and self._clock() - self._healthy_since >= _HEALTHY_S:
            self._num_failures = 0
        self._healthy_since = None
        self._num_failures = max(self._num_failures + 1, 2 if is_lasting else 1)
        exponent = min(self._num_failures - 2, 10)
        delay_s = min(_FIRST_DELAY_S * 2**exponent, _MAX_DELAY_S) if exponent >= 0 else 0.0
        self._not_before = self._clock() + delay_s
