"""Rounds by rule, the reference: one shape and block size, and of two drafts the one whose kind was accepted further.

Drafts grow while they are accepted whole and shrink to what was last accepted. Nothing is known of costs, but that
drafting with slots takes a forward.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusion_core.sampling.acceptance import Acceptance, count_agreeing, kinds_of
from diffusion_core.sampling.draft_length import DraftLength
from diffusion_core.sampling.draft_statistics import SLOTS
from diffusion_core.sampling.drafts import NO_DRAFT, Draft
from diffusion_core.sampling.rounds import Round, RoundShape, Situation


class FixedRounds:
    """Chooses by ``acceptance``; slots ride as ``shape`` says, ``block_size`` of them."""

    def __init__(self, acceptance: Acceptance, *, shape: RoundShape, block_size: int, max_draft: int = 64) -> None:
        self._acceptance, self._shape, self._block_size = acceptance, shape, block_size
        self._length = DraftLength(most=max_draft)

    @property
    def draft_limit(self) -> int:
        """Grows and shrinks with what is accepted."""
        return self._length.value

    def choose(self, situation: Situation) -> Round:
        """Verify a draft if there is one, else draft with slots, else a single token."""
        slots, free = situation.slots, _most_supported(situation.free)
        of_slots, of_free = kinds_of(slots, free)
        expect = self._acceptance.expect
        takes_free = bool(free.tokens) and (not slots or expect(of_free) >= expect(of_slots))
        # Drafting costs a forward of one token; what it promises must make up for that within two.
        gain = expect(of_free) if free.tokens else 0
        size = min(self._block_size, situation.max_slots(0))
        if size and not slots and situation.has_slots and expect(of_slots) / 2 > gain:
            return Round([], groups=(0,), block_size=size, scores_slots=True)
        draft = (free.tokens if takes_free else slots)[: situation.max_draft]
        groups = self._groups_behind(situation, len(draft))
        return Round(draft, free.source if takes_free else SLOTS, groups, self._block_size if groups else 0)

    def choose_head_draft(self, situation: Situation) -> int:
        """A block, unless a free draft is at hand and no worse."""
        free = _most_supported(situation.free)
        of_slots, of_free = kinds_of([], free)
        has_better = bool(free.tokens) and self._acceptance.expect(of_free) >= self._acceptance.expect(of_slots)
        return 0 if has_better else self._block_size

    def observe(self, situation: Situation, chosen: Round, text: Sequence[int], _: float | None) -> None:
        """The text tells of both drafts, of the one that was not verified at least this much."""
        slots, free = situation.slots, _most_supported(situation.free)
        of_slots, of_free = kinds_of(slots, free)
        if chosen.draft and chosen.source != SLOTS:
            self._length.observe(len(chosen.draft), len(text) - 1)
        if slots:
            self._acceptance.observe(of_slots, count_agreeing(slots, text))
        if free.tokens and not (chosen.groups and not chosen.draft):
            self._acceptance.observe(of_free, count_agreeing(free.tokens, text))

    def _groups_behind(self, situation: Situation, num_draft: int) -> tuple[int, ...]:
        """The accepted lengths behind which slots ride."""
        room = self._room_for_slots(situation, num_draft) // self._block_size
        if not situation.has_slots or self._shape is RoundShape.TWO_PASS or not room:
            return ()
        if self._shape is RoundShape.OPTIMISTIC or room == 1:
            return (num_draft,)
        # A free draft mostly holds to its end or departs early.
        lengths = range(num_draft + 1)
        return tuple(lengths) if len(lengths) <= room else (*lengths[: room - 1], num_draft)

    def _room_for_slots(self, situation: Situation, num_draft: int) -> int:
        """As many as may ride, or as do so for nothing: in the size that the round has with a block of them.

        A drafter's own block has slots behind every length: a smaller size than it takes is not aimed at.
        """
        block, num_clean = self._block_size, situation.num_pending + num_draft
        least = max((block + 1) ** 2, num_clean + block)
        room = [size - num_clean for size in situation.sizes if size >= least]
        return min([situation.max_slots(num_draft), *room[:1]])


def _most_supported(free: Sequence[Draft]) -> Draft:
    """The draft with the most support; of equals, that of the earlier source."""
    if len(free) < 2:
        return free[0] if free else NO_DRAFT
    return max(free, key=lambda draft: draft.support)
