"""The parallel policies: `confidence` with self-correction, and `fixed`, the paper's speed-quality curve.

A block of mask slots is denoised in steps. Every step re-evaluates every slot (paper, remark 3.1: no carry-over of
unmasked tokens), commits some of the masked ones and may reopen committed ones whose token became unlikely. When
none is masked the block's tokens become clean; their keys and values are written by the next forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffusion_core.model.config import AttentionPattern, LogitAlignment
from diffusion_core.model.masks import block_causal, causal_context
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import Step
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.unmask import select_remask

# How often a slot may be reopened before it stays; bounds the steps of a block.
MAX_REOPENINGS = 2

SelectUnmask = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class ActiveBlock:
    """Slots at ``start`` on. The first ``num_given`` belong to the prompt: visible, never changed, not counted."""

    start: int
    tokens: list[int]
    num_given: int
    is_masked: torch.Tensor
    reopened: torch.Tensor


class ParallelPolicy:
    """Denoises blocks of ``block_size`` slots; ``select`` chooses what commits, ``tau_low`` what reopens."""

    def __init__(self, chooser: TokenChooser, *, block_size: int, select: SelectUnmask, tau_low: float = 0.0) -> None:
        self._chooser, self._block_size = chooser, block_size
        self._select, self._tau_low = select, tau_low
        self._block: ActiveBlock | None = None
        self._before_block: torch.Tensor | None = None  # logits [1, V] of the last clean row, for the first slot

    def step(self, sequence: DecodingSequence) -> Step:
        """One denoising step of the active block, opening one if there is none."""
        block = self._block = self._block or self._open(sequence)
        logits = self._evaluate(sequence, block)
        places = range(block.start, block.start + len(block.tokens))
        given = [None if m else t for t, m in zip(block.tokens, block.is_masked.tolist(), strict=True)]
        chosen, confidence = self._chooser.choose_surely(logits, places, given)
        self._update(sequence, block, chosen, confidence)
        if not block.is_masked.any():
            self._block, self._before_block = None, None
            accepted = block.tokens[block.num_given :]
            sequence.tokens += accepted
            return Step(accepted, [])
        mask_id = sequence.denoiser.mask_id
        return Step([], [t for t in block.tokens[block.num_given :] if t != mask_id])

    def _open(self, sequence: DecodingSequence) -> ActiveBlock:
        n, mask_id = len(sequence.tokens), sequence.denoiser.mask_id
        assert mask_id is not None, "resolve_policy refuses checkpoints without mask slots"
        start, size = n, self._block_size
        if sequence.denoiser.contract.attention is AttentionPattern.BLOCK_CAUSAL:
            # The grid of blocks is absolute: the tail of the prompt shares the first block with the first slots.
            size = sequence.denoiser.contract.block_size
            start = n // size * size
        given = sequence.tokens[start:n]
        is_masked = torch.tensor([False] * len(given) + [True] * (size - len(given)))
        return ActiveBlock(
            start=start,
            tokens=given + [mask_id] * (size - len(given)),
            num_given=len(given),
            is_masked=is_masked,
            reopened=torch.zeros(size, dtype=torch.long),
        )

    def _update(
        self, sequence: DecodingSequence, block: ActiveBlock, chosen: list[int], confidence: torch.Tensor
    ) -> None:
        commits = self._select(confidence, block.is_masked)
        may_reopen = block.reopened < MAX_REOPENINGS
        may_reopen[: block.num_given] = False
        reopens = select_remask(confidence, block.is_masked, may_reopen, self._tau_low)
        mask_id = sequence.denoiser.mask_id
        assert mask_id is not None
        for slot in commits.nonzero().flatten().tolist():
            block.tokens[slot] = chosen[slot]
        for slot in reopens.nonzero().flatten().tolist():
            block.tokens[slot] = mask_id
        block.is_masked = (block.is_masked & ~commits) | reopens
        block.reopened += reopens.long()

    def _evaluate(self, sequence: DecodingSequence, block: ActiveBlock) -> torch.Tensor:
        """Logits [B, V] that speak of the block's positions; commits the pending tokens on the way."""
        contract = sequence.denoiser.contract
        first = sequence.cache.length
        clean = sequence.tokens[first : block.start]
        rows = clean + block.tokens
        if contract.attention is AttentionPattern.CAUSAL_CONTEXT:
            visible = causal_context(len(clean), (len(block.tokens),), (len(clean),))
        elif contract.attention is AttentionPattern.BLOCK_CAUSAL:
            visible = block_causal(torch.arange(first, first + len(rows)), contract.block_size)
        else:
            visible = torch.ones(len(rows), len(rows), dtype=torch.bool)
        hidden, tapped = sequence.forward(rows, num_clean=len(clean), visible=visible, first_slot=len(clean))
        if contract.attention is not AttentionPattern.BIDIRECTIONAL:
            # A bidirectional prefix depends on the block: its keys are recomputed at every step, never kept.
            sequence.keep(len(clean), tapped)
        if contract.alignment is LogitAlignment.SAME_POSITION:
            return sequence.denoiser.logits(hidden[len(clean) :])
        return self._shifted_logits(sequence, hidden, len(clean))

    def _shifted_logits(self, sequence: DecodingSequence, hidden: torch.Tensor, num_clean: int) -> torch.Tensor:
        """Row p speaks of position p + 1: the first slot is predicted by the last clean row, kept for later steps."""
        if num_clean:
            self._before_block = sequence.denoiser.logits(hidden[num_clean - 1 : num_clean])
        if self._before_block is None:
            # The block begins with the prompt's own tokens: what its first slot holds is known.
            assert self._block is not None and self._block.num_given > 0
            self._before_block = torch.zeros(1, sequence.denoiser.model.config.vocab_size, device=hidden.device)
        slots = hidden[num_clean:-1]
        if not len(slots):
            return self._before_block
        return torch.cat((self._before_block, sequence.denoiser.logits(slots)))
