"""Decoding of a canvas: block by block from the left, one forward a step, always at least one commit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion_core.requests import CanvasCache
from diffusion_core.sampling.asking import Asking
from diffusion_core.sampling.canvas import BlockStart, Canvas, CanvasForward
from diffusion_core.sampling.commit_rules import CommitRule
from diffusion_core.sampling.infill_length import AnswerLength
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import Step, make_open_step
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.unmask import select_remask

# How often a position may be reopened before it stays; bounds the steps of a block.
MAX_REOPENINGS = 2


@dataclass(frozen=True, kw_only=True)
class CanvasSettings:
    """``block_length`` positions are denoised at a time (0: the whole canvas); the others are cache policies' values.

    Under ``tau_low`` a committed position of the active block is reopened.
    """

    block_length: int = 0
    tau_low: float = 0.0
    cache: CanvasCache = CanvasCache.NONE
    refresh_every: int = 0
    block_start: BlockStart = BlockStart.RECOMPUTE


class CanvasPolicy:
    """Denoises the blocks of a canvas in order; ``rule`` says what commits, ``length`` how long the answer is.

    An answer ends early where one of ``stop_ids`` is committed and nothing before it is masked any more.
    """

    def __init__(
        self,
        chooser: TokenChooser,
        rule: CommitRule,
        length: AnswerLength,
        settings: CanvasSettings,
        stop_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._chooser, self._rule, self._length = chooser, rule, length
        self._settings, self._stop_ids = settings, stop_ids
        self._canvas: Canvas | None = None
        self._block = range(0)
        self._reopened = torch.zeros(0, dtype=torch.long)
        self._forward: CanvasForward | None = None

    def step(self, sequence: DecodingSequence) -> Asking[Step]:
        """One forward: of the search for the answer's length, or a denoising step of the active block."""
        if self._canvas is None:
            num_tokens = yield from self._length.step(sequence)
            if num_tokens is None:
                return Step([], [])
            self._open(sequence, num_tokens)
        canvas, block = self._canvas, self._block
        assert canvas is not None
        yield from self._denoise(canvas, block)
        found = [canvas.tokens[at] for at in block]
        end = self._find_end(found, canvas.mask_id)
        if end is None:
            return make_open_step(found, canvas.mask_id)
        accepted = found[:end]
        sequence.tokens += accepted
        is_final = block.stop == canvas.stop or end < len(found)
        if not is_final:
            self._begin_block(canvas, block.stop)
        return Step(accepted, [], is_final)

    def _open(self, sequence: DecodingSequence, num_tokens: int) -> None:
        self._canvas = Canvas.around(sequence, num_tokens)
        settings = self._settings
        self._forward = CanvasForward(
            sequence, settings.cache, refresh_every=settings.refresh_every, block_start=settings.block_start
        )
        self._begin_block(self._canvas, self._canvas.start)

    def _begin_block(self, canvas: Canvas, position: int) -> None:
        assert self._forward is not None
        self._block = canvas.block_at(position, self._settings.block_length or canvas.stop)
        self._reopened = torch.zeros(len(self._block), dtype=torch.long)
        self._forward.renew()
        fills = int(self._forward.fills_block_start)
        self._rule.begin(len(self._block) - fills, fills)

    def _denoise(self, canvas: Canvas, block: range) -> Asking[None]:
        """One forward, and what follows from it for the block."""
        assert self._forward is not None
        is_masked = canvas.masked(block)
        fills = self._forward.fills_block_start and self._forward.is_renewing and bool(is_masked[0])
        logits = yield from self._forward.logits(canvas, block)
        given = [None if masked else canvas.tokens[at] for at, masked in zip(block, is_masked.tolist(), strict=True)]
        chosen, certainty = self._chooser.choose_surely(logits, block, given, self._rule.certainty)
        if fills:
            commits = torch.zeros_like(is_masked)
            commits[0] = True
        else:
            commits = self._rule.select(certainty, is_masked)
        may_reopen = self._reopened < MAX_REOPENINGS
        reopens = torch.zeros_like(is_masked)
        if self._settings.tau_low > 0:
            reopens = select_remask(certainty, is_masked, may_reopen, self._settings.tau_low)
        for at in commits.nonzero().flatten().tolist():
            canvas.tokens[block[at]] = chosen[at]
        for at in reopens.nonzero().flatten().tolist():
            canvas.tokens[block[at]] = canvas.mask_id
        self._reopened += reopens.long()

    def _find_end(self, found: list[int], mask_id: int) -> int | None:
        """How many tokens of the block are the answer's, once that is settled; None while it is not."""
        for at, token in enumerate(found):
            if token == mask_id:
                return None
            if token in self._stop_ids:
                return at + 1
        return len(found)


class PathPlanningPolicy:
    """Open-dCoder's sampler P2 (arXiv 2502.03540), greedy: all positions may change until the last step.

    At each step every position is chosen anew and the least certain ones are masked again, fewer each time; nothing
    is committed before the end. One forward evaluates the whole canvas; keys are never kept.
    """

    def __init__(self, chooser: TokenChooser, length: AnswerLength, *, steps: int = 0, num_per_step: int = 1) -> None:
        self._chooser, self._length = chooser, length
        self._steps, self._num_per_step = steps, num_per_step
        self._canvas: Canvas | None = None
        self._done = 0

    def step(self, sequence: DecodingSequence) -> Asking[Step]:
        """One forward: of the search for the answer's length, or a step of all positions."""
        if self._canvas is None:
            num_tokens = yield from self._length.step(sequence)
            if num_tokens is None:
                return Step([], [])
            self._canvas = Canvas.around(sequence, num_tokens)
            self._steps = self._steps or -(-num_tokens // self._num_per_step)
        canvas, window = self._canvas, self._canvas.window
        logits = yield from CanvasForward(sequence, CanvasCache.NONE).logits(canvas, window)
        chosen, certainty = self._chooser.choose_surely(logits, window, [None] * len(window))
        self._done += 1
        # In float32, as there: products lie on whole numbers often enough.
        num_masked = int(torch.tensor(float(len(window))) * (1 - self._done / self._steps))
        is_masked = canvas.masked(window)
        masks = torch.zeros_like(is_masked)
        masks[certainty.argsort()[:num_masked]] = True
        for at in (is_masked & ~masks).nonzero().flatten().tolist():
            canvas.tokens[window[at]] = chosen[at]
        for at in masks.nonzero().flatten().tolist():
            canvas.tokens[window[at]] = canvas.mask_id
        found = [canvas.tokens[at] for at in window]
        if self._done < self._steps and canvas.mask_id in found:
            return make_open_step(found, canvas.mask_id)
        sequence.tokens += found
        return Step(found, [], is_final=True)
