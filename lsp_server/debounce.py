"""How long an automatic request waits for the next key: between the user's bounds, by typing speed and latency.

Waiting pays when another key is likely to come (fast typing) and a wasted request is expensive (a slow engine).
"""

from __future__ import annotations

from lsp_server.settings import DebounceSettings

FAST_INTERVAL_MS = 120.0  # between keys of a steady typist
SLOW_INTERVAL_MS = 400.0  # pauses from here on are thinking, not typing
SLOW_LATENCY_MS = 400.0
_WEIGHT = 0.3  # of the newest observation


class Debounce:
    """Moving averages of the time between keys and of the engine's latency."""

    def __init__(self) -> None:
        self._last_key_ms: float | None = None
        self._interval_ms = SLOW_INTERVAL_MS
        self._latency_ms = SLOW_LATENCY_MS

    def note_key(self, now_ms: float) -> None:
        """A change of a document arrived."""
        if self._last_key_ms is not None:
            interval = min(now_ms - self._last_key_ms, SLOW_INTERVAL_MS)
            self._interval_ms += _WEIGHT * (interval - self._interval_ms)
        self._last_key_ms = now_ms

    def note_latency(self, latency_ms: float) -> None:
        """The engine answered."""
        self._latency_ms += _WEIGHT * (latency_ms - self._latency_ms)

    def delay_ms(self, bounds: DebounceSettings) -> float:
        """The wait for an automatic request that arrives now."""
        span = SLOW_INTERVAL_MS - FAST_INTERVAL_MS
        speed = min(1.0, max(0.0, (SLOW_INTERVAL_MS - self._interval_ms) / span))
        cost = min(1.0, self._latency_ms / SLOW_LATENCY_MS)
        return bounds.min + (bounds.max - bounds.min) * speed * cost
