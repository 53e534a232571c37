"""Tiles of rows for attention while decoding.

A fused kernel works on tiles of rows, and how it sums can follow from a tile's height. Here every tile has the same
height: rows that are lacking are filled up with the last one. Reordering keys and values for the kernel costs the
same for every tile, so that tiles of several rows are several times faster than single rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class TiledSpan:
    """Rows ``start`` to ``stop``, which attend over the first ``num_keys`` keys, in tiles of ``height`` rows.

    ``bias`` [tiles, 1, height * group, num_keys] is 0 where a row sees a key, else minus infinity; ``group`` query
    heads share a key head and are laid out as extra rows.
    """

    start: int
    stop: int
    num_keys: int
    height: int
    bias: torch.Tensor

    def tile(self, queries: torch.Tensor) -> torch.Tensor:
        """Queries [rows, K, group, Dh] of the span -> [tiles, K, height * group, Dh]."""
        key_heads, group, size = queries.shape[1:]
        tiled = _fill(queries, self.height).view(-1, self.height, key_heads, group, size)
        return tiled.transpose(1, 2).reshape(-1, key_heads, self.height * group, size)

    def untile(self, mixed: torch.Tensor, group: int) -> torch.Tensor:
        """The inverse of :meth:`tile`, [rows, K, group, Dh]; what filled up is dropped."""
        _, key_heads, _, size = mixed.shape
        rows = mixed.view(-1, key_heads, self.height, group, size).transpose(1, 2)
        return rows.reshape(-1, key_heads, group, size)[: self.stop - self.start]


def tile_height(device: torch.device, dtype: torch.dtype) -> int:
    """Rows in a tile: what is fastest for 8 rows without slowing a single one. It never depends on the rows at hand."""
    if device.type != "cpu":
        return 1
    return 4 if dtype == torch.bfloat16 else 2


def tile_spans(
    visible: torch.Tensor, spans: Sequence[tuple[int, int, int]], height: int, group: int, dtype: torch.dtype
) -> tuple[TiledSpan, ...]:
    """The runs of rows (start, stop, keys) of a round whose mask is ``visible`` bool [T, S], in tiles."""
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))
    tiled = []
    for start, stop, num_keys in spans:
        filled = _fill(bias[start:stop, :num_keys], height).view(-1, 1, height, 1, num_keys)
        wide = filled.expand(-1, -1, -1, group, -1).reshape(-1, 1, height * group, num_keys)
        tiled.append(TiledSpan(start, stop, num_keys, height, wide))
    return tuple(tiled)


def _fill(rows: torch.Tensor, height: int) -> torch.Tensor:
    """``rows`` with the last one repeated up to a multiple of ``height``."""
    lacking = -len(rows) % height
    if not lacking:
        return rows
    return torch.cat((rows, rows[-1:].expand(lacking, *rows.shape[1:])))
