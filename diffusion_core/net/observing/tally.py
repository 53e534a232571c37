"""Counts of requests that can be added up and taken apart again, and latencies as a histogram of fine steps."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from diffusion_core.net.observing.observation import Observation, Outcome

# A latency is kept to within half of this step: 1 %.
_STEP = math.log(1.02)
_OUTCOMES = {
    Outcome.OK: "ok", Outcome.ERROR: "errors", Outcome.REJECTED: "rejected", Outcome.CANCELLED: "cancelled",
    Outcome.DEADLINE: "deadlines",
}  # fmt: skip
COUNTS = ("requests", *_OUTCOMES.values(), "tokens", "forwards", "reused_tokens", "computed_tokens")


class Tally:
    """What some requests came to."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._latencies: Counter[int] = Counter()

    def add_request(self, observation: Observation) -> None:
        """Count one request that ended."""
        counts = self._counts
        counts["requests"] += 1
        counts[_OUTCOMES[observation.outcome]] += 1
        for result in observation.results:
            counts["tokens"] += result.num_tokens
            counts["forwards"] += result.num_forwards
            counts["reused_tokens"] += result.num_reused_tokens
            counts["computed_tokens"] += result.num_computed_tokens
            self._latencies[round(math.log(max(result.timings.total_ms, 0.01)) / _STEP)] += 1

    def add(self, other: Tally) -> None:
        """Add what another counts."""
        self._counts.update(other._counts)
        self._latencies.update(other._latencies)

    def remove(self, other: Tally) -> None:
        """Take away what was added before."""
        # In place of subtract(): what is zero has to go, or the names of latencies pile up.
        self._counts -= other._counts
        self._latencies -= other._latencies

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def quantile_ms(self, share: float) -> float | None:
        """The latency in milliseconds that ``share`` of the answers do not exceed; None without answers."""
        rank = math.ceil(share * self._latencies.total())
        for step in sorted(self._latencies):
            rank -= self._latencies[step]
            if rank <= 0:
                return round(math.exp(step * _STEP), 2)
        return None

    def report(self, seconds: float) -> dict[str, Any]:
        """All figures by name, rates over ``seconds``."""
        figures: dict[str, Any] = {name: self._counts[name] for name in COUNTS}
        forwards, prompt = figures["forwards"], figures["reused_tokens"] + figures["computed_tokens"]
        return figures | {
            "p50_ms": self.quantile_ms(0.5),
            "p95_ms": self.quantile_ms(0.95),
            "tokens_per_s": round(figures["tokens"] / seconds, 2) if seconds > 0 else 0.0,
            "tokens_per_forward": round(figures["tokens"] / forwards, 3) if forwards else 0.0,
            "cache_hit_rate": round(figures["reused_tokens"] / prompt, 4) if prompt else 0.0,
        }
