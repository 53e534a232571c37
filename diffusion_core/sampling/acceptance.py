"""How far drafts are accepted, by where they come from: which of two drafts to verify, and how many rows to spend.

The figures are moving means over the rounds of a model, across requests. They decide only what is tried, never what
is accepted, so a verified text does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from diffusion_core.sampling.drafts import MAX_NGRAM, OUTLOOK, Draft

# A new observation's share of the mean, once there are enough of them.
_LEAST_SHARE = 0.03
# What is expected of slots before anything was seen, and how many observations that counts for.
_SLOTS_PRIOR = 0.6
_OUTLOOK_PRIOR = 1.5
_PRIOR_COUNT = 4


class DraftKind(NamedTuple):
    """``support``: tokens of evidence of a free draft, 0 for a drafter's slots; ``agrees``: both begin alike.

    ``is_outlook``: what the prompt's forward promises.
    """

    support: int
    agrees: bool
    is_outlook: bool = False

    @property
    def prior(self) -> float:
        """Accepted tokens to expect before any were seen: a match of n tokens goes on for about n more."""
        if self.is_outlook:
            return _OUTLOOK_PRIOR
        prior = _SLOTS_PRIOR if self.support == 0 else 0.5 * self.support
        return prior + (0.5 if self.agrees else 0.0)


class Acceptance:
    """Moving means of accepted tokens by kind of draft."""

    def __init__(self) -> None:
        self._means: dict[DraftKind, tuple[float, int]] = {}

    def expect(self, kind: DraftKind) -> float:
        """Tokens of a draft of that kind that will be accepted, on average."""
        known = self._means.get(kind)
        return kind.prior if known is None else known[0]

    def observe(self, kind: DraftKind, num_accepted: int) -> None:
        """A draft of that kind was accepted so far."""
        mean, count = self._means.get(kind) or (kind.prior, _PRIOR_COUNT)
        share = max(1 / (count + 1), _LEAST_SHARE)
        self._means[kind] = (mean + share * (num_accepted - mean), count + 1)


def kinds_of(slots: Sequence[int], free: Draft) -> tuple[DraftKind, DraftKind]:
    """The kinds of a drafter's guess and of a free draft for the same place."""
    agrees = bool(slots) and bool(free.tokens) and slots[0] == free.tokens[0]
    support = min(max(int(free.support), 1), MAX_NGRAM)
    return DraftKind(0, agrees), DraftKind(support, agrees, free.source == OUTLOOK)


def count_agreeing(draft: Sequence[int], text: Sequence[int]) -> int:
    """Tokens of ``draft`` that ``text`` begins with."""
    count = 0
    for drafted, committed in zip(draft, text, strict=False):
        if drafted != committed:
            break
        count += 1
    return count
