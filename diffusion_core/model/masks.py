"""Which row sees which: pure index functions, no model.

A forward evaluates rows; each row is a clean token or a slot of a draft block. Visibility is a boolean matrix, True
where the row (first axis) may look at the key (second axis). All rows see all committed keys, except where a
pattern says otherwise; the functions here give the square part among the rows of one forward.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS


class Visibility:
    """Which keys rows see, bool [B or 1, T or 1, S], and what that adds to their scores, made once for all layers."""

    def __init__(self, visible: torch.Tensor) -> None:
        self._visible = visible
        self._biases: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def bias(self, group: int, dtype: torch.dtype) -> torch.Tensor:
        """0 where a row sees a key, else minus infinity: [B or 1, 1, group * T or 1, S], row by row for each head.

        The ``group`` query heads that share a key head are extra rows; a mask that all rows share needs no copies.
        """
        if (group, dtype) not in self._biases:
            visible = self._visible.unsqueeze(1)
            bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            bias.masked_fill_(~visible, float("-inf"))
            self._biases[group, dtype] = bias.repeat(1, 1, group, 1) if visible.shape[2] > 1 else bias
        return self._biases[group, dtype]


def causal(num_rows: int) -> torch.Tensor:
    """Each row sees itself and the rows before it: bool [T, T]."""
    return torch.ones(num_rows, num_rows, dtype=torch.bool).tril()


def block_causal(positions: torch.Tensor, block_size: int) -> torch.Tensor:
    """Each row sees its own block (an absolute grid) and all earlier blocks: bool [T, T] for ``positions`` [T]."""
    block = positions // block_size
    return block[:, None] >= block[None, :]


def everything(num_rows: int) -> torch.Tensor:
    """Each row sees all rows: bool [T, T], or [1, T] where there are too many rows for a decoding round."""
    return torch.ones(num_rows if num_rows <= MAX_DECODE_ROWS else 1, num_rows, dtype=torch.bool)


def causal_context(num_clean: int, group_sizes: tuple[int, ...], group_sees: tuple[int, ...]) -> torch.Tensor:
    """Clean rows followed by groups of slots: bool [T, T].

    Clean rows are causal and see no slot. A slot of group g sees the first ``group_sees[g]`` clean rows and every
    slot of its own group, in both directions; groups do not see each other.
    """
    total = num_clean + sum(group_sizes)
    visible = torch.zeros(total, total, dtype=torch.bool)
    visible[:num_clean, :num_clean] = causal(num_clean)
    start = num_clean
    for size, sees in zip(group_sizes, group_sees, strict=True):
        visible[start : start + size, :sees] = True
        visible[start : start + size, start : start + size] = True
        start += size
    return visible


def round_mask(num_clean: int, group_size: int = 0, group_sees: tuple[int, ...] = ()) -> torch.Tensor:
    """:func:`causal_context` with groups of one size. Those of rounds repeat: they are kept, nobody writes to them."""
    if num_clean + group_size * len(group_sees) > MAX_DECODE_ROWS:
        return causal_context(num_clean, (group_size,) * len(group_sees), group_sees)
    return _kept_mask(num_clean, group_size, group_sees)


@lru_cache(maxsize=512)
def _kept_mask(num_clean: int, group_size: int, group_sees: tuple[int, ...]) -> torch.Tensor:
    return causal_context(num_clean, (group_size,) * len(group_sees), group_sees)
