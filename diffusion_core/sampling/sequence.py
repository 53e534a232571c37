"""One sequence being decoded: committed tokens, their cache, and the prefill that brings the cache up to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from diffusion_core.model.config import AttentionPattern
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import block_causal, causal_context
from diffusion_core.sampling.evaluate import PREFILL_ROWS, Denoiser


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
    """``tokens`` are committed for good; those behind ``cache.length`` are pending: accepted, not yet in the cache."""

    denoiser: Denoiser
    tokens: list[int]
    cache: SequenceCache
    num_prompt: int = 0
    num_forwards: int = 0
    num_head_calls: int = 0
    # Hidden states [1 + B, D] that guess the first tokens behind the prompt; see :meth:`prefill`.
    outlook: torch.Tensor | None = None

    @property
    def pending(self) -> list[int]:
        """Committed tokens whose keys and values are not in the cache."""
        return self.tokens[self.cache.length :]

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
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """One counted forward. The first ``num_clean`` rows may be committed afterwards with :meth:`keep`."""
        self.num_forwards += 1
        tapped: list[torch.Tensor] | None = [] if self.denoiser.draft_head is not None else None
        hidden = self.denoiser.evaluate(
            self.cache.base, rows, positions=positions, visible=visible, first_slot=first_slot, tapped=tapped
        )
        return hidden, None if tapped is None else [x[:, :num_clean] for x in tapped]

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
        """Compute the prompt's keys and values but for the last token; yields after each forward its rows.

        The last of these forwards looks ahead (:attr:`outlook`): the prompt's last token and a block of slots ride
        along, uncommitted. Whoever decodes gets the same rows, so that what is committed does not depend on it.
        """
        contract = self.denoiser.contract
        target = len(self.tokens) - 1
        step = PREFILL_ROWS
        if contract.attention is AttentionPattern.BLOCK_CAUSAL:
            # Only whole blocks of the absolute grid have final keys and values. The last one stays pending, so that
            # its last row can speak of the first slot of the next block.
            target = target // contract.block_size * contract.block_size
            step = max(1, PREFILL_ROWS // contract.block_size) * contract.block_size
        elif contract.attention is AttentionPattern.BIDIRECTIONAL:
            target = 0
        forwards = self.num_forwards
        looks_ahead = contract.attention is AttentionPattern.CAUSAL_CONTEXT
        while self.cache.length < target:
            start = self.cache.length
            end = min(target, start + step)
            if looks_ahead and end == target:
                tapped = self._look_ahead(start, end)
            else:
                visible = None
                if contract.attention is AttentionPattern.BLOCK_CAUSAL:
                    visible = block_causal(torch.arange(start, end), contract.block_size)
                _, tapped = self.forward(self.tokens[start:end], num_clean=end - start, visible=visible)
            self.keep(end - start, tapped)
            self.num_forwards = forwards  # the prompt is not part of the NFE
            yield end - start

    def _look_ahead(self, start: int, end: int) -> list[torch.Tensor] | None:
        """The forward of ``tokens[start:end]``, the token behind them, and slots that see all of these."""
        denoiser, num_clean = self.denoiser, end + 1 - start
        size = max(denoiser.contract.block_size, 1) if denoiser.has_slots else 0
        rows = self.tokens[start : end + 1]
        if not size:
            hidden, tapped = self.forward(rows, num_clean=end - start)
        else:
            assert denoiser.mask_id is not None
            hidden, tapped = self.forward(
                rows + [denoiser.mask_id] * size,
                num_clean=end - start,
                visible=causal_context(num_clean, (size,), (num_clean,)),
                first_slot=num_clean,
            )
        # A copy: the memory of captured rounds is written again by whoever decodes next.
        self.outlook = hidden[num_clean - 1 :].clone()
        return tapped
