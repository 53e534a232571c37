"""A canvas: a whole text with masks in it, for models of which every row sees every other.

The masks stand where the answer will be; what stands behind them is read as well. The canvas is denoised block by
block. A forward evaluates all of it, or the active block alone over keys and values that an earlier forward left
(Fast-dLLM v1, arXiv 2505.22618): those depend on the block, so this is an approximation, made anew at every block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from diffusion_core.model.config import LogitAlignment
from diffusion_core.model.masks import everything
from diffusion_core.requests import CanvasCache
from diffusion_core.sampling.asking import Asking, ask_logits
from diffusion_core.sampling.sequence import DecodingSequence


@dataclass
class Canvas:
    """Tokens of a text, of which those from ``start`` to ``stop`` are the answer's."""

    tokens: list[int]
    start: int
    stop: int
    mask_id: int

    @classmethod
    def around(cls, sequence: DecodingSequence, num_masks: int) -> Canvas:
        """Masks between the sequence's tokens and its suffix."""
        mask_id = sequence.denoiser.mask_id
        assert mask_id is not None, "resolve_policy refuses checkpoints without mask slots"
        start = len(sequence.tokens)
        tokens = [*sequence.tokens, *[mask_id] * num_masks, *sequence.suffix]
        return cls(tokens, start, start + num_masks, mask_id)

    @property
    def window(self) -> range:
        """Positions of the answer."""
        return range(self.start, self.stop)

    def block_at(self, position: int, length: int) -> range:
        """The block of at most ``length`` positions that begins at ``position``."""
        return range(position, min(position + length, self.stop))

    def masked(self, block: range) -> torch.Tensor:
        """Which positions of ``block`` are masked: bool [len(block)]."""
        return torch.tensor([self.tokens[at] == self.mask_id for at in block], dtype=torch.bool)


class BlockStart(StrEnum):
    """Who speaks of a block's first position where logits are shifted and the row before it is not evaluated again.

    ``RECOMPUTE``: that row is, with the block. ``FILL``: nobody has to, since the forward that renews the keys commits
    that position whatever its confidence; so does Fast-dLLM v1 with Dream.
    """

    RECOMPUTE = "recompute"
    FILL = "fill"


class CanvasForward:
    """Evaluates canvases over a sequence's cache, which holds nothing of worth afterwards.

    ``refresh_every`` forwards the kept keys are made anew (0: only where :meth:`renew` says so).
    """

    def __init__(
        self,
        sequence: DecodingSequence,
        cache: CanvasCache,
        *,
        refresh_every: int = 0,
        block_start: BlockStart = BlockStart.RECOMPUTE,
    ) -> None:
        self._sequence, self._kind, self._refresh_every = sequence, cache, refresh_every
        self._is_shifted = sequence.denoiser.contract.alignment is LogitAlignment.SHIFTED
        self._steps_back = 1 if self._is_shifted and block_start is BlockStart.RECOMPUTE else 0
        self._age: int | None = None
        self.fills_block_start = (
            self._is_shifted and block_start is BlockStart.FILL and cache is not CanvasCache.NONE and refresh_every != 1
        )

    def renew(self) -> None:
        """Let the next forward evaluate everything: another block or another text begins."""
        self._age = None

    @property
    def is_renewing(self) -> bool:
        """Whether the next forward evaluates everything."""
        if self._kind is CanvasCache.NONE or self._age is None:
            return True
        return bool(self._refresh_every) and self._age >= self._refresh_every

    def logits(self, canvas: Canvas, block: range) -> Asking[torch.Tensor]:
        """Scores [len(block), V], float32, that speak of the positions of ``block``; one counted forward."""
        if self._is_shifted and block.start == 0:
            raise ValueError("the row before a block speaks of its first position: a canvas begins with a clean token")
        again = self._evaluated_again(canvas, block)
        kept = [at for at in range(len(canvas.tokens)) if at < again.start or at >= again.stop]
        if self.is_renewing:
            self._sequence.cache.crop(0)
            # The kept rows come first, so that they can be committed; which rows see which does not depend on order.
            rows = [*kept, *again]
            hidden = yield from self._forward(canvas, rows)
            self._sequence.keep(len(kept), None)
            self._age = 1
        else:
            assert self._age is not None
            rows = list(again)
            hidden = yield from self._forward(canvas, rows)
            self._age += 1
        place = {position: row for row, position in enumerate(rows)}
        speaking = [place.get(at - self._is_shifted, 0) for at in block]
        spoken = hidden[torch.tensor(speaking, device=hidden.device)]
        return (yield from ask_logits(self._sequence.denoiser, spoken))

    def _evaluated_again(self, canvas: Canvas, block: range) -> range:
        """The positions that every forward evaluates; the keys of all others are kept."""
        first = max(block.start - self._steps_back, 0)
        match self._kind:
            case CanvasCache.PREFIX:
                return range(first, len(canvas.tokens))
            case CanvasCache.DUAL:
                return range(first, block.stop)
            case _:
                return range(len(canvas.tokens))

    def _forward(self, canvas: Canvas, rows: Sequence[int]) -> Asking[torch.Tensor]:
        tokens = [canvas.tokens[at] for at in rows]
        found = yield from self._sequence.forward(tokens, num_clean=0, positions=rows, visible=everything(len(rows)))
        return found.hidden
