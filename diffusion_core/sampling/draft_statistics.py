"""How far drafts are accepted, by their source, the evidence behind them, and the offset in the draft.

For every kind of draft and every offset: how often the token there was right, of the times that all before it were.
From these follow the chances that a draft is accepted up to any length, also beyond the lengths that were tried. The
figures fade, so that they follow the code being written; they decide what is tried, never what is accepted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from diffusion_core.sampling.acceptance import count_agreeing
from diffusion_core.sampling.drafts import OUTLOOK, Draft

MAX_OFFSETS = 64
SLOTS = "slots"  # the source of a drafter's guesses
NUM_REPORTED_OFFSETS = 4

# Offsets share a figure from one of these to the next.
_OFFSETS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_BUCKET_OF = [bisect_right(_OFFSETS, offset) - 1 for offset in range(MAX_OFFSETS)]
# Evidence (tokens that led to a draft) is told apart up to four tokens, then by doublings.
_EVIDENCE = (0, 1, 2, 3, 4, 5, 9, 17, 33)
# A draft departs after t agreeing tokens with a chance of about x / (t + x).
_DEPARTURES = {"selection": 0.7, "suggestion": 1.0, "answer": 1.0}
# How often a slot of the shipped drafter is right, of the times that those before it are.
_SLOTS_RIGHT = 0.68
# What a prior counts for, and how many observations a figure remembers.
_PRIOR_WEIGHT = 4.0
_MEMORY = 200.0


class DraftKind(NamedTuple):
    """``evidence`` is a step of a scale; ``agrees``: another draft for the place begins alike, None: not asked."""

    source: str
    evidence: int = 0
    agrees: bool | None = None

    def prior(self, offset: int) -> float:
        """The chance of the token at ``offset`` before anything was seen; of guesses a hopeful one: they must be tried.

        After t agreeing tokens (evidence, and the draft up to there) about one in t + 2 continuations departs where an
        earlier n-gram is repeated, counted over Python's standard library; a text that is being edited holds longer.
        """
        if self.source == OUTLOOK and offset == 0:
            chance = 0.98
        elif self.source in (SLOTS, OUTLOOK):
            chance = max(_SLOTS_RIGHT - 0.02 * offset, 0.3)
        else:
            tokens = _EVIDENCE[self.evidence] + offset
            chance = tokens / (tokens + _DEPARTURES.get(self.source, 2.0))
        return 1 - 0.5 * (1 - chance) if self.agrees and offset == 0 else chance


class _Figures:
    """Successes and trials of one kind by bucket of offsets; ``reach[n]`` is the chance that n tokens are accepted."""

    def __init__(self, kind: DraftKind) -> None:
        self._trials = [_PRIOR_WEIGHT] * len(_OFFSETS)
        self._right = [_PRIOR_WEIGHT * kind.prior(offset) for offset in _OFFSETS]
        self._reach: list[float] = []

    @property
    def reach(self) -> list[float]:
        if not self._reach:
            rates = [right / trials for right, trials in zip(self._right, self._trials, strict=True)]
            self._reach = [1.0, *accumulate([rates[bucket] for bucket in _BUCKET_OF], mul)]
        return self._reach

    def observe(self, num_agreeing: int, has_departed: bool) -> None:
        trials, right = self._trials, self._right
        for offset, bucket in enumerate(_BUCKET_OF[: num_agreeing + has_departed]):
            # Told of every round: no call for each token.
            before = trials[bucket]
            kept = 1.0 if before <= _MEMORY - 1 else (_MEMORY - 1) / before
            trials[bucket] = before * kept + 1
            right[bucket] = right[bucket] * kept + (offset < num_agreeing)
        self._reach = []


@dataclass
class SourceTotals:
    """What became of the drafts of one source.

    ``num_drafts``, ``num_drafted`` and ``num_accepted`` count what was verified: drafts, their tokens, those accepted.
    ``tried`` and ``right`` count by offset all drafts that were made: how often all tokens before were right, and how
    often the token there was right as well.
    """

    num_drafts: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    tried: list[int] = field(default_factory=lambda: [0] * NUM_REPORTED_OFFSETS)
    right: list[int] = field(default_factory=lambda: [0] * NUM_REPORTED_OFFSETS)

    @property
    def rates(self) -> tuple[float, ...]:
        """Share of right tokens at the first offsets, as far as any were tried."""
        return tuple(right / tried for right, tried in zip(self.right, self.tried, strict=True) if tried)


class DraftStatistics:
    """Chances of acceptance by kind of draft, and totals for people."""

    def __init__(self) -> None:
        self._figures: dict[DraftKind, _Figures] = {}
        self.totals: dict[str, SourceTotals] = {}
        self.num_rounds = self.num_tokens = 0
        self.rounds_since_slots = 0

    def reach(self, kind: DraftKind) -> list[float]:
        """Chance that the first n tokens are accepted, for n from 0 to :data:`MAX_OFFSETS`; never rises."""
        return self._of(kind).reach

    def learn(self, slots: Sequence[int], free: Sequence[Draft], text: Sequence[int]) -> None:
        """What the ``text`` that followed says about a drafter's guess and the free drafts, verified or not."""
        self.rounds_since_slots = 0 if slots else self.rounds_since_slots + 1
        if slots:
            self._observe(slots_kind(slots, ()), slots_kind(slots, free), slots, text)
        for draft in free:
            self._observe(free_kind(draft, ()), free_kind(draft, slots), draft.tokens, text)

    def count_round(self, source: str, num_drafted: int, num_committed: int) -> None:
        """A round committed ``num_committed`` tokens; it verified ``num_drafted`` tokens of ``source``."""
        self.num_rounds += 1
        self.num_tokens += num_committed
        if num_drafted:
            totals = self._totals_of(source)
            totals.num_drafts += 1
            totals.num_drafted += num_drafted
            totals.num_accepted += num_committed - 1

    def _observe(self, kind: DraftKind, beside: DraftKind, draft: Sequence[int], text: Sequence[int]) -> None:
        """A draft that is one of ``kind`` and, beside other drafts, one of ``beside``."""
        agreeing = count_agreeing(draft, text)
        # A text that ends while the two agree says nothing about the rest of the draft.
        has_departed = agreeing < min(len(draft), len(text))
        self._of(kind).observe(agreeing, has_departed)
        if beside != kind:
            self._of(beside).observe(agreeing, has_departed)
        totals = self._totals_of(kind.source)
        for offset in range(min(NUM_REPORTED_OFFSETS, agreeing)):
            totals.tried[offset] += 1
            totals.right[offset] += 1
        if has_departed and agreeing < NUM_REPORTED_OFFSETS:
            totals.tried[agreeing] += 1

    def _totals_of(self, source: str) -> SourceTotals:
        totals = self.totals.get(source)
        if totals is None:
            totals = self.totals[source] = SourceTotals()
        return totals

    def _of(self, kind: DraftKind) -> _Figures:
        figures = self._figures.get(kind)
        if figures is None:
            figures = self._figures[kind] = _Figures(kind)
        return figures


def slots_kind(slots: Sequence[int], free: Sequence[Draft]) -> DraftKind:
    """The kind of a drafter's guess beside free drafts for the same place."""
    if not slots or not free:
        return DraftKind(SLOTS)
    return DraftKind(SLOTS, agrees=any(draft.tokens[0] == slots[0] for draft in free))


def free_kind(draft: Draft, slots: Sequence[int]) -> DraftKind:
    """The kind of a free draft beside a drafter's guess for the same place."""
    evidence = bisect_right(_EVIDENCE, max(1, int(draft.support))) - 1
    return DraftKind(draft.source, evidence, slots[0] == draft.tokens[0] if slots else None)
