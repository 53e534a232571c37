"""The lossless policies: `autoregressive`, and `verified`, which gives the very same text in fewer forwards.

A round of `verified` evaluates the pending tokens and a draft as clean causal rows. The logits of each row say which
token the model would choose after it; the draft is accepted as far as it agrees, and the first row behind it adds
the model's own token. Where drafts come from (lookup, selection, slots of a drafter, draft head) cannot change the
text, only the number of forwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch

from diffusion_core.model.masks import causal_context
from diffusion_core.sampling.acceptance import Acceptance, count_agreeing, kinds_of
from diffusion_core.sampling.draft_length import DraftLength
from diffusion_core.sampling.drafts import DraftSource, best_draft
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import Step
from diffusion_core.sampling.sequence import DecodingSequence


class RoundShape(StrEnum):
    """Where the next block's slots ride (decoding.md section 2)."""

    TWO_PASS = "two_pass"  # noqa: S105 - not a password. Draft in one forward, verify in the next
    OPTIMISTIC = "optimistic"  # slots behind the whole draft: one forward a round while drafts are accepted whole
    ALL_LENGTHS = "all_lengths"  # slots behind every possible accepted length: always one forward a round


# Slots behind every length of a long free draft would be hundreds of rows: with this many, the likeliest lengths.
MAX_SLOT_ROWS = 64


class AutoregressivePolicy:
    """One token a forward: the reference."""

    def __init__(self, chooser: TokenChooser) -> None:
        self._chooser = chooser

    def step(self, sequence: DecodingSequence) -> Step:
        """Evaluate the pending tokens; their last row gives the next token."""
        pending = sequence.pending
        hidden, tapped = sequence.forward(pending, num_clean=len(pending))
        sequence.keep(len(pending), tapped)
        token = self._chooser.choose(sequence.denoiser.logits(hidden[-1:]), [len(sequence.tokens)])
        sequence.tokens += token
        return Step(token, [])


class VerifiedPolicy:
    """Accepts the longest part of a draft that the clean causal rows choose too.

    With ``use_slots`` the checkpoint's drafter fills ``block_size`` slots; drafts from sources have a length of their
    own. Of the two the one is verified of which more was accepted so far (``acceptance``). ``max_rows`` bounds the rows
    of a round, where their number decides which kernels run.
    """

    def __init__(
        self,
        chooser: TokenChooser,
        sources: Sequence[DraftSource],
        *,
        block_size: int,
        shape: RoundShape = RoundShape.TWO_PASS,
        use_slots: bool = True,
        max_draft: int = 64,
        max_rows: int | None = None,
        acceptance: Acceptance | None = None,
    ) -> None:
        self._chooser, self._sources = chooser, sources
        # At least one row of a round is a committed token.
        room = max_draft if max_rows is None else max_rows - 1
        self._block_size, self._shape = min(block_size, room) if max_rows else block_size, shape
        self._use_slots, self._max_rows = use_slots, max_rows
        self._length = DraftLength(most=min(max_draft, room))
        self._acceptance = acceptance or Acceptance()
        self._slot_draft: list[int] = []

    def step(self, sequence: DecodingSequence) -> Step:
        """One forward: verify a draft if there is one, else draft with slots, else a single token."""
        slots, self._slot_draft = self._slot_draft, []
        free = best_draft(self._sources, self._length.value)
        of_slots, of_free = kinds_of(slots, free)
        expect = self._acceptance.expect
        takes_free = bool(free.tokens) and (not slots or expect(of_free) >= expect(of_slots))
        draft = free.tokens if takes_free else slots
        # Drafting costs a forward of one token; what it promises must make up for that within two.
        if not slots and self._has_slots(sequence) and expect(of_slots) / 2 > (expect(of_free) if free.tokens else 0):
            return self._draft_with_slots(sequence)
        step = self._verify(sequence, draft)
        if takes_free:
            self._length.observe(len(draft), len(step.accepted) - 1)
        # The text tells of both drafts, of the one that was not verified at least this much.
        if slots:
            self._acceptance.observe(of_slots, count_agreeing(slots, step.accepted))
        if free.tokens:
            self._acceptance.observe(of_free, count_agreeing(free.tokens, step.accepted))
        return step

    def _has_slots(self, sequence: DecodingSequence) -> bool:
        denoiser = sequence.denoiser
        return self._use_slots and denoiser.mask_id is not None and denoiser.draft_head is None

    def _draft_with_slots(self, sequence: DecodingSequence) -> Step:
        """Pending tokens and one group of slots: the last clean row's token is exact, the slots' are a draft."""
        pending, size, n = sequence.pending, self._block_size, len(sequence.tokens)
        hidden, tapped = self._forward(sequence, pending, group_sees=(len(pending),))
        sequence.keep(len(pending), tapped)
        chosen = self._chooser.choose(sequence.denoiser.logits(hidden[len(pending) - 1 :]), range(n, n + size + 1))
        self._slot_draft = chosen[1:]
        self._commit(sequence, chosen[:1])
        return Step(chosen[:1], chosen[1:])

    def _verify(self, sequence: DecodingSequence, draft: list[int]) -> Step:
        pending, n = sequence.pending, len(sequence.tokens)
        if self._max_rows is not None:
            draft = draft[: max(0, self._max_rows - len(pending))]
        num_clean = len(pending) + len(draft)
        groups = self._groups_behind(sequence, len(pending), len(draft))
        hidden, tapped = self._forward(sequence, pending + draft, group_sees=groups)
        # Where no row needs noise of its own, slots are read together with the verdict: one wait for the device.
        reads_all = bool(groups) and self._chooser.is_plain
        last = len(hidden) if reads_all else num_clean
        logits = sequence.denoiser.logits(hidden[len(pending) - 1 : last])
        chosen = self._chooser.choose(logits, range(n, n + last - len(pending) + 1))
        chosen, of_slots = chosen[: len(draft) + 1], chosen[len(draft) + 1 :]
        accepted = 0
        while accepted < len(draft) and draft[accepted] == chosen[accepted]:
            accepted += 1
        sequence.keep(len(pending) + accepted, tapped)
        self._commit(sequence, chosen[: accepted + 1])
        if reads_all:
            self._slot_draft = self._pick_group(of_slots, groups, len(pending) + accepted)
        elif groups:
            self._slot_draft = self._read_group(sequence, hidden[num_clean:], groups, len(pending) + accepted)
        elif self._use_slots and sequence.denoiser.draft_head is not None:
            self._slot_draft = self._ask_head(sequence)
        return Step(chosen[: accepted + 1], self._slot_draft)

    def _groups_behind(self, sequence: DecodingSequence, num_pending: int, num_draft: int) -> tuple[int, ...]:
        """How many clean rows each group of slots sees; empty when no slots ride along."""
        if not self._has_slots(sequence) or self._shape is RoundShape.TWO_PASS:
            return ()
        most = max(2, MAX_SLOT_ROWS // self._block_size)
        if self._max_rows is not None:
            most = min(most, (self._max_rows - num_pending - num_draft) // self._block_size)
        if most <= 0:
            return ()
        if self._shape is RoundShape.OPTIMISTIC:
            return (num_pending + num_draft,)
        lengths = range(num_draft + 1)
        if len(lengths) > most:
            # A free draft mostly holds to its end or departs early.
            return tuple(num_pending + n for n in (*lengths[: most - 1], num_draft))
        return tuple(num_pending + n for n in lengths)

    def _pick_group(self, of_slots: list[int], groups: tuple[int, ...], num_kept: int) -> list[int]:
        """As :meth:`_read_group`, from the choices of all slot rows."""
        if num_kept not in groups:
            return []
        start = groups.index(num_kept) * self._block_size
        return of_slots[start : start + self._block_size]

    def _read_group(
        self, sequence: DecodingSequence, slots: torch.Tensor, groups: tuple[int, ...], num_kept: int
    ) -> list[int]:
        """The draft of the group that saw exactly the kept rows; empty when there is none.

        Its slots begin at the position of the token that this round added, so their (shifted) logits speak of the
        positions behind that token.
        """
        if num_kept not in groups:
            return []
        start = groups.index(num_kept) * self._block_size
        logits = sequence.denoiser.logits(slots[start : start + self._block_size])
        n = len(sequence.tokens)
        return self._chooser.choose(logits, range(n, n + self._block_size))

    def _ask_head(self, sequence: DecodingSequence) -> list[int]:
        """A draft by the draft head, which has read every token in the cache; the newest token is its anchor."""
        head, cache, carried = sequence.denoiser.draft_head, sequence.cache.head, sequence.cache.carried
        assert head is not None and cache is not None and carried is not None
        free = best_draft(self._sources, 1)
        of_slots, of_free = kinds_of([], free)
        if free.tokens and self._acceptance.expect(of_free) >= self._acceptance.expect(of_slots):
            return []  # a free draft is at hand, and no worse
        sequence.num_head_calls += 1
        with torch.inference_mode():
            return head.draft(sequence.denoiser.model, sequence.tokens[-1], carried, self._block_size, cache)

    def _forward(
        self, sequence: DecodingSequence, clean: list[int], group_sees: tuple[int, ...]
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Clean rows, then one group of mask slots for each entry of ``group_sees``."""
        if not group_sees:
            return sequence.forward(clean, num_clean=len(clean))
        mask_id, size, first = sequence.denoiser.mask_id, self._block_size, sequence.cache.length
        assert mask_id is not None
        positions = [*range(first, first + len(clean))]
        for sees in group_sees:
            positions += range(first + sees, first + sees + size)
        return sequence.forward(
            clean + [mask_id] * (size * len(group_sees)),
            num_clean=len(clean),
            positions=positions,
            visible=causal_context(len(clean), (size,) * len(group_sees), group_sees),
            first_slot=len(clean),
        )

    def _commit(self, sequence: DecodingSequence, tokens: list[int]) -> None:
        sequence.tokens += tokens
        for source in self._sources:
            source.observe(tokens)
