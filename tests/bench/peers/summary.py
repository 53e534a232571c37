"""From answers to rates and ratios: plain arithmetic, tested in tests/bench/test_peers.py.

A rate over a run is (all tokens) / (all seconds). A ratio of two peers is given twice: of the rates over the run, and
as the median over items of the ratio on each item, which one disturbed item cannot move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One peer's answer to one item. ``tokens`` are those of the text, counted alike for all; times are seconds."""

    task_id: str
    text: str
    tokens: int
    prompt_tokens: int
    prefill_s: float
    decode_s: float
    total_s: float
    forwards: int = 0

    @property
    def tokens_per_second(self) -> float:
        """From the request to the last token."""
        return per_second(self.tokens, self.total_s)

    @property
    def decode_tokens_per_second(self) -> float:
        return per_second(self.tokens, self.decode_s)

    @property
    def prefill_tokens_per_second(self) -> float:
        """Of the prompt but for its last token."""
        return per_second(self.prompt_tokens - 1, self.prefill_s)


def per_second(amount: int, seconds: float) -> float:
    """A rate; 0, which is no rate, where a peer took no time of its own for it."""
    return amount / seconds if seconds else 0.0


def rates_of(rows: Sequence[Row]) -> dict[str, float]:
    """Tokens per second over all rows: from request to last token, of decoding, of reading prompts."""
    tokens = sum(row.tokens for row in rows)
    return {
        "tokens_per_second": per_second(tokens, sum(row.total_s for row in rows)),
        "decode_tokens_per_second": per_second(tokens, sum(row.decode_s for row in rows)),
        "prefill_tokens_per_second": per_second(
            sum(row.prompt_tokens - 1 for row in rows), sum(row.prefill_s for row in rows)
        ),
    }


def summarize_peer(rows: Sequence[Row], ours: Sequence[Row]) -> dict[str, Any]:
    """Rates of one peer, and on how many items its text is that of ``ours`` (the same items)."""
    tokens = sum(row.tokens for row in rows)
    forwards = sum(row.forwards for row in rows)
    return {
        "items": len(rows),
        "tokens": tokens,
        **{name: _round(rate) for name, rate in rates_of(rows).items()},
        "tokens_per_forward": _round(tokens / forwards) if forwards else None,
        "seconds_per_item_mean": _round(sum(row.total_s for row in rows) / len(rows)),
        "seconds_per_item_median": _round(median(row.total_s for row in rows)),
        "same_text": sum(row.text == other.text for row, other in zip(rows, ours, strict=True)),
    }


def compare(ours: Sequence[Row], theirs: Sequence[Row]) -> dict[str, Any]:
    """How many times faster ``ours`` is than ``theirs`` on the same items: above 1, ours is ahead.

    ``seconds`` is (their seconds) / (our seconds) of whole items: it compares answers of different lengths as a user
    does. Items on which a peer wrote nothing, or all at once, have no rate and are left out of its median.
    """
    fast, slow = rates_of(ours), rates_of(theirs)
    found: dict[str, Any] = {}
    for rate in fast:
        pairs = [
            (getattr(a, rate), getattr(b, rate)) for a, b in zip(ours, theirs, strict=True) if getattr(b, rate) > 0
        ]
        found[rate] = {
            "run": _round(fast[rate] / slow[rate]) if slow[rate] else None,
            "item_median": _round(median(a / b for a, b in pairs)) if pairs else None,
        }
    found["seconds"] = {
        "run": _round(sum(row.total_s for row in theirs) / sum(row.total_s for row in ours)),
        "item_median": _round(median(b.total_s / a.total_s for a, b in zip(ours, theirs, strict=True))),
    }
    return found


def summarize(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """All peers, each beside the first one."""
    first = next(iter(rows))
    return {
        "peers": {name: summarize_peer(answers, rows[first]) for name, answers in rows.items()},
        "compared": first,
        "times_faster_than": {
            name: compare(rows[first], answers) for name, answers in rows.items() if name != first
        },
    }  # fmt: skip


def keep_whole_turns(rows: Mapping[str, list[Row]]) -> dict[str, list[Row]]:
    """Without the answers to an item that not every peer has answered: a run may end in the middle of a turn."""
    whole = min(len(answers) for answers in rows.values())
    return {name: answers[:whole] for name, answers in rows.items()}


def order_of_turn(names: Sequence[str], turn: int) -> list[str]:
    """The peers in the order of one turn: each is first once, and neighbours change too."""
    shift = turn % len(names)
    rotated = [*names[shift:], *names[:shift]]
    return rotated if turn // len(names) % 2 == 0 else rotated[::-1]


def _round(value: float) -> float:
    return float(f"{value:.5g}")
