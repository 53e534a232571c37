"""A round of `verified`: which draft is judged, and where slots for the next one ride along.

What a round is cannot change the text, only what it costs and how far it gets. Who chooses is a
:class:`RoundPlanner`: fixed rules (``fixed_rounds.py``, the reference), or costs and chances (``costed_rounds.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.sampling.cost_model import RoundSize
from diffusion_core.sampling.drafts import Draft

# Slots behind every length of a long free draft would be hundreds of rows: with this many, the likeliest lengths.
MAX_SLOT_ROWS = 64


class RoundShape(StrEnum):
    """Where the next block's slots ride (decoding.md section 2)."""

    TWO_PASS = "two_pass"  # noqa: S105 - not a password. Draft in one forward, verify in the next
    OPTIMISTIC = "optimistic"  # slots behind the whole draft: one forward a round while drafts are accepted whole
    ALL_LENGTHS = "all_lengths"  # slots behind every possible accepted length: always one forward a round


# Not frozen, as little else is that every round makes anew: to make what is frozen takes several times as long.
@dataclass(slots=True)
class Round:
    """Clean rows for ``draft`` (of ``source``), and ``block_size`` slots behind each accepted length of ``groups``.

    ``scores_slots``: the output head scores the slots of all groups together with the clean rows, in one call; else a
    second call scores those of the group that is needed, if it is there.
    """

    draft: list[int]
    source: str = ""
    groups: tuple[int, ...] = ()
    block_size: int = 0
    scores_slots: bool = False

    def size(self, num_pending: int, num_keys: int, num_accepted: int, *, has_own_head: bool = False) -> RoundSize:
        """What it evaluates when ``num_accepted`` tokens are accepted; slots may be read by a head of their own."""
        slots = len(self.groups) * self.block_size
        verdict = len(self.draft) + 1
        scored: tuple[int, ...] = (verdict,)
        if self.scores_slots and not has_own_head:
            scored = (verdict + slots,)
        elif num_accepted in self.groups and not has_own_head:
            scored = (verdict, self.block_size)
        return RoundSize(num_pending + len(self.draft), slots, scored, num_keys)


@dataclass(slots=True)
class Situation:
    """What a round begins with: drafts at hand, rows that must be evaluated anyway, and positions in the cache.

    ``slots`` is a drafter's guess that an earlier round left, ``free`` are the drafts of the sources that have one.
    ``has_slots``: the model can fill slots in its own forward; ``has_head``: a draft head can be asked.
    ``max_rows`` bounds the rows of the round: more would leave the shape in which rows do not depend on each other.
    ``company`` sequences share the forward, this one included. A round takes as long as one with the next larger number
    of rows among ``sizes``; where there are none each row counts.
    """

    slots: list[int]
    free: list[Draft]
    num_pending: int
    num_keys: int
    has_slots: bool
    has_head: bool = False
    max_rows: int = MAX_DECODE_ROWS
    company: int = 1
    sizes: Sequence[int] = ()

    @property
    def max_draft(self) -> int:
        """Tokens that a draft may have."""
        return max(0, self.max_rows - self.num_pending)

    def max_slots(self, num_draft: int) -> int:
        """Slots that may ride along with a draft."""
        return max(0, min(MAX_SLOT_ROWS, self.max_rows - self.num_pending - num_draft))


class RoundPlanner(Protocol):
    """Chooses rounds, and learns from what became of them."""

    @property
    def draft_limit(self) -> int:
        """How many tokens the free sources are asked for."""
        ...

    def choose(self, situation: Situation) -> Round:
        """The next round."""
        ...

    def choose_head_draft(self, situation: Situation) -> int:
        """How many tokens the draft head is asked for before the next round; 0: it is not."""
        ...

    def observe(self, situation: Situation, chosen: Round, text: Sequence[int], ms: float | None) -> None:
        """``chosen`` committed ``text`` in ``ms`` milliseconds (None: the time says nothing about other rounds)."""
        ...
