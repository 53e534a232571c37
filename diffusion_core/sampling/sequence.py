"""One sequence being decoded: committed tokens, their cache, and the prefill that brings the cache up to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from diffusion_core.model.config import AttentionPattern
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import block_causal, causal_context
from diffusion_core.sampling.asking import Asking, Evaluated, RowsWanted, ask_rows, run_alone
from diffusion_core.sampling.evaluate import Denoiser

# However many sequences share a forward: a token with a draft of a few more.
FEWEST_ROWS = 4


@dataclass
class SequenceCache:
    """Clean keys and values of a sequence: the model's and, with a draft head, the head's own. Same length, always."""

    base: KVCache
    head: KVCache | None = None
    # The draft head's feature [1, D] of the last position that a forward committed.
    carried: torch.Tensor | None = None

    @classmethod
    def create(cls, denoiser: Denoiser, capacity: int) -> SequenceCache:
        """An empty cache with room for ``capacity`` positions."""
        model = denoiser.model
        base = KVCache(model.config, capacity=capacity, dtype=model.dtype, device=model.device)
        head = None if denoiser.draft_head is None else denoiser.draft_head.new_cache(capacity, base)
        return cls(base, head)

    @property
    def length(self) -> int:
        """Committed positions."""
        return self.base.length

    @property
    def num_bytes(self) -> int:
        """Memory held, in bytes."""
        return self.base.num_bytes + (self.head.num_bytes if self.head is not None else 0)

    def crop(self, length: int) -> None:
        """Forget the positions from ``length`` on."""
        self.base.crop(length)
        if self.head is not None:
            self.head.crop(length)

    def copy(self, length: int, capacity: int) -> SequenceCache:
        """A new cache with the first ``length`` positions."""
        head = None if self.head is None else self.head.copy(length, capacity)
        return SequenceCache(self.base.copy(length, capacity), head)


@dataclass
class DecodingSequence:
    """``tokens`` are committed for good; those behind ``cache.length`` are pending: accepted, not yet in the cache.

    ``suffix`` stands behind the answer: for models that are denoised as a whole and fill it in between.
    """

    denoiser: Denoiser
    tokens: list[int]
    cache: SequenceCache
    num_prompt: int = 0
    num_forwards: int = 0
    num_head_calls: int = 0
    suffix: tuple[int, ...] = ()
    # Hidden states [1 + B, D] that guess the first tokens behind the prompt; see :meth:`prefill`.
    outlook: torch.Tensor | None = None
    # Sequences that decode in the same forwards, this one included.
    company: int = 1
    # Whether the text does not depend on bits of slots, so that they may be evaluated in any company.
    slots_only_draft: bool = True

    @property
    def pending(self) -> list[int]:
        """Committed tokens whose keys and values are not in the cache."""
        return self.tokens[self.cache.length :]

    @property
    def fair_rows(self) -> int:
        """Rows of a forward that this sequence may fill, so that all of its company have room in it."""
        return max(self.denoiser.most_shared_rows // self.company, FEWEST_ROWS)

    @property
    def answer(self) -> list[int]:
        """Tokens committed after the prompt."""
        return self.tokens[self.num_prompt :]

    def forward(
        self,
        rows: Sequence[int],
        *,
        num_clean: int,
        positions: Sequence[int] | None = None,
        visible: torch.Tensor | None = None,
        first_slot: int | None = None,
        wants_best: bool = False,
        piece: int = 0,
    ) -> Asking[Evaluated]:
        """One counted forward. The first ``num_clean`` rows may be committed afterwards with :meth:`keep`.

        ``wants_best``: the best token of each row, where a captured round takes it itself. ``piece``: see
        :class:`RowsWanted`.
        """
        self.num_forwards += 1
        has_head = self.denoiser.draft_head is not None
        may_share = first_slot is None or self.denoiser.adapter is None or self.slots_only_draft
        outcome = yield from ask_rows(
            RowsWanted(
                self.denoiser, self.cache.base, rows, positions, visible, first_slot,
                wants_taps=has_head, wants_best=wants_best, may_share=may_share, piece=piece,
            )
        )  # fmt: skip
        if outcome.tapped is not None:
            outcome.tapped = [x[:, :num_clean] for x in outcome.tapped]
        return outcome

    def keep(self, num_rows: int, tapped: list[torch.Tensor] | None) -> None:
        """Commit the keys and values of the first ``num_rows`` rows of the last forward."""
        first = self.cache.length
        if self.cache.head is not None and tapped is not None and num_rows:
            head = self.denoiser.draft_head
            assert head is not None
            with torch.inference_mode():
                self.cache.carried = head.read([x[:, :num_rows] for x in tapped], first, self.cache.head)
        self.cache.base.commit(num_rows)

    def prefill(self) -> Iterator[int]:
        """Compute the prompt alone; yields after each forward its rows. See :meth:`prefill_piece`."""
        while rows := run_alone(self.prefill_piece()):
            yield rows

    def prefill_piece(self) -> Asking[int]:
        """Compute the next piece of the prompt but for its last token; its rows, 0 when all are there.

        The last of these forwards looks ahead (:attr:`outlook`): the prompt's last token and a block of slots ride
        along, uncommitted. Whoever decodes gets the same rows, so that what is committed does not depend on it.
        """
        contract = self.denoiser.contract
        target, step, piece = len(self.tokens) - 1, self.denoiser.prefill_rows, 1
        if contract.attention is AttentionPattern.BLOCK_CAUSAL:
            # Only whole blocks of the absolute grid have final keys and values. The last one stays pending, so that
            # its last row can speak of the first slot of the next block.
            piece = contract.block_size
            target = target // piece * piece
            step = max(1, step // piece) * piece
        elif contract.attention is AttentionPattern.BIDIRECTIONAL:
            target = 0
        start = self.cache.length
        if start >= target:
            return 0
        forwards = self.num_forwards
        end = min(target, start + step)
        if self.denoiser.prefills_in_rounds and end == target and end - start + self._rows_ahead > step:
            end = max(start + 1, target - 1)  # what looks ahead would not fit beside it
        if contract.attention is AttentionPattern.CAUSAL_CONTEXT and end == target:
            found = yield from self._look_ahead(start, end)
        else:
            visible = None
            if contract.attention is AttentionPattern.BLOCK_CAUSAL:
                visible = block_causal(torch.arange(start, end), contract.block_size)
            found = yield from self.forward(self.tokens[start:end], num_clean=end - start, visible=visible, piece=piece)
        num_rows = min(end - start, len(found.hidden))
        self.keep(num_rows, found.tapped)
        self.num_forwards = forwards  # the prompt is not part of the NFE
        return num_rows

    @property
    def _rows_ahead(self) -> int:
        """Rows that ride with the last ones of a prompt: its last token, and a block of slots."""
        return 1 + (max(self.denoiser.contract.block_size, 1) if self.denoiser.has_slots else 0)

    def _look_ahead(self, start: int, end: int) -> Asking[Evaluated]:
        """The forward of ``tokens[start:end]``, the token behind them, and slots that see all of these."""
        denoiser, num_clean, size = self.denoiser, end + 1 - start, self._rows_ahead - 1
        rows = self.tokens[start : end + 1]
        if not size:
            found = yield from self.forward(rows, num_clean=end - start, piece=1)
        else:
            assert denoiser.mask_id is not None
            found = yield from self.forward(
                rows + [denoiser.mask_id] * size,
                num_clean=end - start,
                visible=causal_context(num_clean, (size,), (num_clean,)),
                first_slot=num_clean,
                piece=1,
            )
        if len(found.hidden) == num_clean + size:
            # A copy: the memory of captured rounds is written again by whoever decodes next.
            self.outlook = found.hidden[num_clean - 1 :].clone()
        return found
