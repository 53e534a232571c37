"""Draft blocks over clean sequences: the second pass of a training step.

A block begins at position p of its sequence and has rows at p, p + 1, ... Its context are the clean tokens before p.
Logits are shifted, so row j speaks of position p + j + 1. A row holds the mask token, the true token of its position
(revealed), or a wrong one: the paper's two corruptions inside a block (sections 3.1, eq. 1-4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """How blocks are drawn.

    ``num_blocks`` a sequence, each of ``least`` to ``most`` rows; a share ``full_mask_share`` is all masks and a share
    ``known_share`` all revealed. In the others a prefix is revealed (the order in which verification accepts; a share
    ``prefix_share`` of them), or every row with probability 1 - t. ``noise_share`` of the revealed rows hold a wrong
    token. With ``has_anchor`` the first row is always revealed and true: the newest token, which a draft head knows
    and its base has not seen. Its revealed rows are causal: they see no row behind themselves, so all of them learn.
    """

    num_blocks: int
    least: int
    most: int
    full_mask_share: float
    noise_share: float
    has_anchor: bool
    known_share: float = 0.0
    prefix_share: float = 0.5


@dataclass(frozen=True)
class DraftBlocks:
    """N blocks of S rows for each of B sequences.

    ``starts`` int64 [B, N]. Of each row [B, N, S]: ``tokens`` (anything where masked), ``is_masked``, ``is_wrong`` and
    ``is_used`` (False behind the end of a short block or of the sequence). ``is_full`` (all masks) and ``is_known``
    (all revealed and true) bool [B, N]. ``is_causal``: revealed rows see no row behind themselves.
    """

    starts: torch.Tensor
    tokens: torch.Tensor
    is_masked: torch.Tensor
    is_wrong: torch.Tensor
    is_used: torch.Tensor
    is_full: torch.Tensor
    is_known: torch.Tensor
    is_causal: bool = field(default=False, kw_only=True)

    @property
    def positions(self) -> torch.Tensor:
        """Absolute position of each row, int64 [B, N * S]."""
        offsets = torch.arange(self.tokens.shape[2], device=self.starts.device)
        return (self.starts.unsqueeze(-1) + offsets).flatten(1)

    def visibility(self, num_clean: int) -> torch.Tensor:
        """Bool [B, N * S, C + N * S]: a row sees the clean tokens before its block and the used rows of its block."""
        _, num_blocks, size = self.tokens.shape
        device = self.starts.device
        starts = self.starts.repeat_interleave(size, dim=1)
        sees_clean = torch.arange(num_clean, device=device) < starts.unsqueeze(-1)
        block = torch.arange(num_blocks, device=device).repeat_interleave(size)
        sees_rows = (block[:, None] == block[None, :]) & self.is_used.flatten(1).unsqueeze(1)
        if self.is_causal:
            is_behind = torch.ones(num_blocks * size, num_blocks * size, dtype=torch.bool, device=device).triu(1)
            sees_rows = sees_rows & (self.is_masked.flatten(1).unsqueeze(-1) | ~is_behind)
        # A row that is not used sees itself: a row of nothing but hidden keys would be 0 / 0.
        sees_rows = sees_rows | torch.eye(num_blocks * size, dtype=torch.bool, device=device)
        return torch.cat((sees_clean, sees_rows), dim=-1)

    def to(self, device: torch.device) -> DraftBlocks:
        """The same blocks on another device."""
        moved = [getattr(self, name).to(device) for name in _TENSORS]
        return DraftBlocks(*moved, is_causal=self.is_causal)


_TENSORS = tuple(f.name for f in fields(DraftBlocks) if f.name != "is_causal")


def join_blocks(parts: Sequence[DraftBlocks]) -> DraftBlocks:
    """Blocks of several sequences as one batch."""
    joined = [torch.cat([getattr(part, name) for part in parts]) for name in _TENSORS]
    return DraftBlocks(*joined, is_causal=parts[0].is_causal)


def draw_blocks(
    tokens: torch.Tensor, lengths: torch.Tensor, firsts: torch.Tensor, shape: BlockShape, generator: torch.Generator
) -> DraftBlocks:
    """Blocks over ``tokens`` [B, T], everything on the CPU.

    A block starts at ``firsts`` [B] or later (half of them) or anywhere in the sequence (the others: the prompt is
    code too), and so that its first row has a target.
    """
    batch, num_blocks, size = len(lengths), shape.num_blocks, shape.most

    def uniform(*sizes: int) -> torch.Tensor:
        return torch.rand(sizes, generator=generator)

    last = (lengths - 2).clamp_min(1).unsqueeze(-1)
    least = torch.where(uniform(batch, num_blocks) < 0.5, firsts.unsqueeze(-1), 1).clamp(min=1).minimum(last)
    starts = least + (uniform(batch, num_blocks) * (last - least + 1)).long()
    sizes = shape.least + (uniform(batch, num_blocks) * (size - shape.least + 1)).long()
    offsets = torch.arange(size)
    positions = starts.unsqueeze(-1) + offsets
    is_used = (offsets < sizes.unsqueeze(-1)) & (positions + 1 < lengths[:, None, None])
    true = tokens.gather(1, positions.clamp_max(tokens.shape[1] - 1).flatten(1)).view(batch, num_blocks, size)

    is_full = uniform(batch, num_blocks) < shape.full_mask_share
    is_known = ~is_full & (uniform(batch, num_blocks) < shape.known_share / max(1 - shape.full_mask_share, 1e-9))
    num_known = (uniform(batch, num_blocks) * sizes).long().unsqueeze(-1)
    is_prefix = uniform(batch, num_blocks, 1) < shape.prefix_share
    t = uniform(batch, num_blocks, 1)
    is_masked = torch.where(is_prefix, offsets >= num_known, uniform(batch, num_blocks, size) < t)
    is_masked = (is_masked | is_full.unsqueeze(-1)) & ~is_known.unsqueeze(-1)
    is_wrong = ~is_masked & ~is_known.unsqueeze(-1) & (uniform(batch, num_blocks, size) < shape.noise_share)
    if shape.has_anchor:
        is_masked[..., 0] = False
        is_wrong[..., 0] = False
    # Wrong tokens are tokens of the same sequence: likelier mistakes than any of the vocabulary.
    others = (uniform(batch, num_blocks * size) * lengths.unsqueeze(-1)).long()
    wrong = tokens.gather(1, others).view(batch, num_blocks, size)
    is_wrong = is_wrong & (wrong != true)
    return DraftBlocks(
        starts, torch.where(is_wrong, wrong, true), is_masked, is_wrong, is_used, is_full, is_known,
        is_causal=shape.has_anchor,
    )  # fmt: skip
