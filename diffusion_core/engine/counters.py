"""What an engine has done and is doing, in figures: for metrics and load reports. No text, no names of users."""

from __future__ import annotations

from dataclasses import dataclass

# A forward of more sequences than this counts as one of this many.
MAX_COUNTED_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounters:
    """A snapshot. Numbers of the first part only rise while the engine lives; those of the second are of the moment.

    ``num_forwards`` are calls of a model, of ``num_rows`` rows in all; ``batch_sizes[n]`` of them were shared by n
    sequences (the last entry: by that many or more). ``num_prefilled_tokens`` of prompts were computed and
    ``num_reused_tokens`` taken from kept caches, by ``num_cache_hits`` of ``num_begun`` requests;
    ``num_answer_tokens`` were committed behind them. Requests end as completed, cancelled, late (their deadline
    passed), or failed; ``num_refused`` were not taken at all. Warm-ups count among the begun, and nowhere below.

    ``num_queued_*`` are waiting for a place by kind, ``num_active`` have one; ``num_users`` have either. Caches of the
    active hold ``active_cache_bytes``; ``num_kept_caches`` idle ones, for later requests, ``kept_cache_bytes``.
    """

    num_forwards: int = 0
    num_rows: int = 0
    batch_sizes: tuple[int, ...] = (0,) * (MAX_COUNTED_BATCH + 1)
    num_begun: int = 0
    num_cache_hits: int = 0
    num_prefilled_tokens: int = 0
    num_reused_tokens: int = 0
    num_answer_tokens: int = 0
    num_completed: int = 0
    num_cancelled: int = 0
    num_late: int = 0
    num_failed: int = 0
    num_refused: int = 0

    num_queued_completions: int = 0
    num_queued_edits: int = 0
    num_queued_warm_ups: int = 0
    num_active: int = 0
    num_users: int = 0
    active_cache_bytes: int = 0
    kept_cache_bytes: int = 0
    num_kept_caches: int = 0

    @property
    def num_queued(self) -> int:
        """Requests that wait for a place, of all kinds."""
        return self.num_queued_completions + self.num_queued_edits + self.num_queued_warm_ups


class Tally:
    """Counts what the engine's thread does. Others read it through :meth:`Engine.counters`."""

    def __init__(self) -> None:
        self.num_forwards = self.num_rows = 0
        self.batch_sizes = [0] * (MAX_COUNTED_BATCH + 1)
        self.num_begun = self.num_cache_hits = self.num_reused_tokens = 0
        self.num_prefilled_tokens = self.num_answer_tokens = 0
        self.num_completed = self.num_cancelled = self.num_late = self.num_failed = self.num_refused = 0

    def count_forward(self, num_sequences: int, num_rows: int) -> None:
        """A model was called."""
        self.num_forwards += 1
        self.num_rows += num_rows
        self.batch_sizes[min(num_sequences, MAX_COUNTED_BATCH)] += 1

    def count_begin(self, num_reused: int) -> None:
        """A request got a place, with that many tokens of its prompt from a kept cache."""
        self.num_begun += 1
        self.num_cache_hits += num_reused > 0
        self.num_reused_tokens += num_reused
