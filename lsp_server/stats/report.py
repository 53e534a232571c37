"""From rows and counts to figures: what `unmask stats` shows."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsp_server.stats.latencies import PERCENTILES, PHASES, percentile
from lsp_server.stats.records import DROP, EDIT, LATENCY, Count, Fate
from lsp_server.stats.store import Store

SURVIVED_SHARE = 0.8  # of the characters of an accepted text


@dataclass(frozen=True)
class Usefulness:
    """What became of suggestions. Rates have the denominators that their names in the JSON say."""

    num_offered: int
    num_shown: int
    num_accepted: int
    num_partly: int
    num_dismissed: int
    num_chars_accepted: int
    num_known_soon: int
    num_kept_soon: int
    num_known_late: int
    num_kept_late: int

    @staticmethod
    def of(fates: Sequence[Fate]) -> Usefulness:
        """Summed over suggestions; one whose editor does not tell what it shows counts as shown."""
        soon = [fate.kept_soon for fate in fates if fate.kept_soon is not None]
        late = [fate.kept_late for fate in fates if fate.kept_late is not None]
        return Usefulness(
            num_offered=len(fates),
            num_shown=sum(fate.is_shown is not False for fate in fates),
            num_accepted=sum(fate.is_accepted for fate in fates),
            num_partly=sum(not fate.is_accepted and fate.num_accepted > 0 for fate in fates),
            num_dismissed=sum(fate.is_dismissed and not fate.num_accepted for fate in fates),
            num_chars_accepted=sum(fate.num_accepted for fate in fates),
            num_known_soon=len(soon),
            num_kept_soon=sum(kept >= SURVIVED_SHARE for kept in soon),
            num_known_late=len(late),
            num_kept_late=sum(kept >= SURVIVED_SHARE for kept in late),
        )

    def to_json(self) -> dict[str, Any]:
        """Counts and rates; a rate without a denominator is null."""
        return {
            "offered": self.num_offered,
            "shown": self.num_shown,
            "accepted": self.num_accepted,
            "partlyAccepted": self.num_partly,
            "dismissed": self.num_dismissed,
            "charactersAccepted": self.num_chars_accepted,
            "acceptedOfShown": rate(self.num_accepted, self.num_shown),
            "survived30s": {"known": self.num_known_soon, "survived": self.num_kept_soon,
                            "rate": rate(self.num_kept_soon, self.num_known_soon)},
            "survived5min": {"known": self.num_known_late, "survived": self.num_kept_late,
                             "rate": rate(self.num_kept_late, self.num_known_late)},
        }  # fmt: skip


@dataclass(frozen=True)
class Latency:
    """One phase of one task: how many were measured, and the percentiles in milliseconds."""

    task: str
    phase: str
    num: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Report:
    """All figures since a time. Days are local dates such as 2026-11-26."""

    since: float
    total: Usefulness
    by_language: Mapping[str, Usefulness]
    by_day: Mapping[str, Usefulness]
    latencies: Sequence[Latency]
    drops: Mapping[str, int]
    edits: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was recorded."""
        return not (self.total.num_offered or self.latencies or self.drops or self.edits)

    def to_json(self) -> dict[str, Any]:
        """For scripts; the names stay."""
        return {
            "since": self.since,
            "suggestions": self.total.to_json(),
            "byLanguage": {name: part.to_json() for name, part in self.by_language.items()},
            "byDay": {day: part.to_json() for day, part in self.by_day.items()},
            "latenciesMs": [
                {"task": one.task, "phase": one.phase, "n": one.num, "p50": round(one.p50_ms, 2),
                 "p95": round(one.p95_ms, 2)} for one in self.latencies
            ],
            "droppedBecause": dict(self.drops),
            "edits": dict(self.edits),
        }  # fmt: skip


def make_report(store: Store, since: float) -> Report:
    """Read everything since a time (seconds since 1970).

    Raises:
        StoreError: the file cannot be read.
    """
    fates, counts = store.fates(since), store.counts(since)
    return Report(
        since=since,
        total=Usefulness.of(fates),
        by_language=_by(fates, lambda fate: fate.language or "?"),
        by_day=dict(sorted(_by(fates, lambda fate: time.strftime("%Y-%m-%d", time.localtime(fate.time))).items())),
        latencies=_latencies(counts),
        drops=_totals(counts, DROP),
        edits=_totals(counts, EDIT),
    )


def rate(part: int, whole: int) -> float | None:
    """A share, or None of nothing."""
    return round(part / whole, 4) if whole else None


def _by(fates: Sequence[Fate], key: Any) -> dict[str, Usefulness]:
    groups: defaultdict[str, list[Fate]] = defaultdict(list)
    for fate in fates:
        groups[key(fate)].append(fate)
    return {name: Usefulness.of(groups[name]) for name in sorted(groups, key=lambda name: -len(groups[name]))}


def _latencies(counts: Counter[Count]) -> list[Latency]:
    buckets: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for count, n in counts.items():
        if count.kind == LATENCY:
            task, _, phase = count.name.partition(".")
            buckets[task, phase][count.bucket] += n
    order = {phase: number for number, phase in enumerate(PHASES)}
    return [
        Latency(task, phase, found.total(), *(percentile(found, percent) for percent in PERCENTILES))
        for (task, phase), found in sorted(buckets.items(), key=lambda item: (item[0][0], order.get(item[0][1], 99)))
    ]


def _totals(counts: Counter[Count], kind: str) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for count, n in counts.items():
        if count.kind == kind:
            totals[count.name] += n
    return dict(totals.most_common())
