"""The parallel policies: `confidence` with self-correction, and `fixed`, the paper's speed-quality curve.

A block of mask slots is denoised in steps. Every step re-evaluates every slot (paper, remark 3.1: no carry-over of
unmasked tokens), commits some of the masked ones and may reopen committed ones whose token became unlikely. When
none is masked, or none before a token that ends the answer, the block's tokens become clean. Their keys and values are
written by the next forward, which begins the next block at the same time: it gives the same logits as a forward of its
own before it, since clean rows never see later blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from diffusion_core.model.config import AttentionPattern, CommitForward, LogitAlignment
from diffusion_core.model.masks import block_causal, causal_context
from diffusion_core.sampling.asking import Asking, ask_logits
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import Step, make_open_step
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
    """Denoises blocks of ``block_size`` slots; ``select`` chooses what commits, ``tau_low`` what reopens.

    An answer ends with the first of ``stop_token_ids``: what stands behind it is not waited for.
    """

    def __init__(
        self,
        chooser: TokenChooser,
        *,
        block_size: int,
        select: SelectUnmask,
        tau_low: float = 0.0,
        stop_token_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._chooser, self._block_size = chooser, block_size
        self._select, self._tau_low, self._stop_ids = select, tau_low, stop_token_ids
        self._block: ActiveBlock | None = None
        self._before_block: torch.Tensor | None = None  # logits [1, V] of the last clean row, for the first slot

    def step(self, sequence: DecodingSequence) -> Asking[Step]:
        """One denoising step of the active block, opening one if there is none; or the commit of a finished one."""
        if self._block is None and self._commits_apart(sequence):
            return (yield from self._commit(sequence))
        block = self._block = self._block or self._open(sequence)
        logits = yield from self._evaluate(sequence, block)
        places = range(block.start, block.start + len(block.tokens))
        given = [None if m else t for t, m in zip(block.tokens, block.is_masked.tolist(), strict=True)]
        chosen, confidence = self._chooser.choose_surely(logits, places, given)
        self._update(sequence, block, chosen, confidence)
        end = self._settled_end(block)
        if end is not None:
            self._block, self._before_block = None, None
            accepted = block.tokens[block.num_given : end]
            sequence.tokens += accepted
            return Step(accepted, [])
        mask_id = sequence.denoiser.mask_id
        return make_open_step(block.tokens[block.num_given :], mask_id)

    def _settled_end(self, block: ActiveBlock) -> int | None:
        """Where the block ends, once nothing before it is masked: behind a token that ends the answer, or whole."""
        is_masked = block.is_masked.tolist()
        for slot in range(block.num_given, len(block.tokens)):
            if is_masked[slot]:
                return None
            if block.tokens[slot] in self._stop_ids:
                return slot + 1
        return len(block.tokens)

    def _commits_apart(self, sequence: DecodingSequence) -> bool:
        """Whether whole blocks are pending that get a forward of their own."""
        contract = sequence.denoiser.contract
        if contract.attention is not AttentionPattern.BLOCK_CAUSAL or contract.commit is not CommitForward.APART:
            return False
        return len(sequence.tokens) // contract.block_size * contract.block_size > sequence.cache.length

    def _commit(self, sequence: DecodingSequence) -> Asking[Step]:
        """Commit the whole blocks that are pending; with shifted logits their last row gives the token behind them."""
        contract, first = sequence.denoiser.contract, sequence.cache.length
        end = len(sequence.tokens) // contract.block_size * contract.block_size
        visible = block_causal(torch.arange(first, end), contract.block_size)
        found = yield from sequence.forward(sequence.tokens[first:end], num_clean=end - first, visible=visible)
        sequence.keep(end - first, found.tapped)
        if contract.alignment is not LogitAlignment.SHIFTED or end < len(sequence.tokens):
            return Step([], [])
        logits = yield from ask_logits(sequence.denoiser, found.hidden[-1:])
        accepted = self._chooser.choose(logits, [end])
        sequence.tokens += accepted
        return Step(accepted, [])

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
        commits = self._select(confidence, _first_part(block.is_masked, sequence.denoiser.contract.sub_block_size))
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

    def _evaluate(self, sequence: DecodingSequence, block: ActiveBlock) -> Asking[torch.Tensor]:
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
            raise AssertionError("canvas_policy.py denoises what is bidirectional")
        found = yield from sequence.forward(rows, num_clean=len(clean), visible=visible, first_slot=len(clean))
        sequence.keep(len(clean), found.tapped)
        if contract.alignment is LogitAlignment.SAME_POSITION:
            return (yield from ask_logits(sequence.denoiser, found.hidden[len(clean) :]))
        return (yield from self._shifted_logits(sequence, found.hidden, len(clean)))

    def _shifted_logits(self, sequence: DecodingSequence, hidden: torch.Tensor, num_clean: int) -> Asking[torch.Tensor]:
        """Row p speaks of position p + 1: the first slot is predicted by the last clean row, kept for later steps."""
        # One call of the head: the clean row's and the slots' rows stand together.
        rows = hidden[max(num_clean - 1, 0) : -1]
        logits = (yield from ask_logits(sequence.denoiser, rows)) if len(rows) else None
        if num_clean and logits is not None:
            self._before_block, logits = logits[:1], logits[1:]
        if self._before_block is None:
            # The block begins with the prompt's own tokens: what its first slot holds is known.
            assert self._block is not None and self._block.num_given > 0
            self._before_block = torch.zeros(1, sequence.denoiser.model.config.vocab_size, device=hidden.device)
        return self._before_block if logits is None else torch.cat((self._before_block, logits))


def _first_part(is_masked: torch.Tensor, size: int) -> torch.Tensor:
    """The masked slots [B] of the first part of ``size`` slots that has any; all of them when ``size`` is 0."""
    if not size or not is_masked.any():
        return is_masked
    part = int(is_masked.int().argmax()) // size
    within = torch.arange(len(is_masked)) // size == part
    return is_masked & within
