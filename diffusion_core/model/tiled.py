"""Quantised weights on any device: widened a tile of outputs at a time, then multiplied as plain ones.

No kernel of any maker is needed, and no more than a tile is ever wide. Reading the weights costs more than it would in
a kernel that widens in registers; where there is one it is preferred.

On a CPU the plain product gives a row other bits in other company. The rows of a decoding round are therefore
multiplied in parts of a fixed height, the last one filled up with zeros: every row meets the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from diffusion_core.model.int4 import Int4Weight, widen
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS, round_up
from diffusion_core.model.quantized import QuantizedWeight

# Wide weights of a tile, in elements: a few megabytes, which stay in a CPU's cache.
_TILE_ELEMENTS = 2 * 1024 * 1024
_GPU_TILE_ELEMENTS = 8 * 1024 * 1024
_ROWS = 16


class TiledMatrix:
    """A quantised weight [out, in] that is widened by ``widen_rows(start, stop, dtype)`` whenever it is multiplied."""

    def __init__(
        self,
        num_out: int,
        num_in: int,
        num_bytes: int,
        widen_rows: Callable[[int, int, torch.dtype], torch.Tensor],
    ) -> None:
        self._num_out, self._num_in = num_out, num_in
        self._widen_rows = widen_rows
        self.num_bytes = num_bytes

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in], in ``x``'s dtype."""
        rows = x.reshape(-1, self._num_in)
        y = self._multiply(rows)
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], self._num_out)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`linear`, in float32."""
        return self.linear(x).float()

    def _multiply(self, rows: torch.Tensor) -> torch.Tensor:
        num_rows, on_cpu = len(rows), rows.device.type == "cpu"
        if on_cpu and num_rows <= MAX_DECODE_ROWS:
            rows = F.pad(rows, (0, 0, 0, round_up(num_rows, _ROWS) - num_rows))
        y = rows.new_empty(len(rows), self._num_out)
        step = max(1, (_TILE_ELEMENTS if on_cpu else _GPU_TILE_ELEMENTS) // self._num_in)
        for start in range(0, self._num_out, step):
            stop = min(start + step, self._num_out)
            weight = self._widen_rows(start, stop, rows.dtype)
            if on_cpu and num_rows <= MAX_DECODE_ROWS:
                for first in range(0, len(rows), _ROWS):
                    y[first : first + _ROWS, start:stop] = F.linear(rows[first : first + _ROWS], weight)
            else:
                y[:, start:stop] = F.linear(rows, weight)
        return y[:num_rows]


def tile_int4(weight: Int4Weight) -> TiledMatrix:
    """A 4-bit weight on its own device."""

    def widen_rows(start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        return widen(Int4Weight(weight.values[start:stop], weight.groups[start:stop]), dtype)

    return TiledMatrix(*weight.shape, weight.num_bytes, widen_rows)


def tile_int8(weight: QuantizedWeight) -> TiledMatrix:
    """An 8-bit weight on its own device."""

    def widen_rows(start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        return (weight.values[start:stop].float() * weight.scales[start:stop].unsqueeze(1)).to(dtype)

    num_out, num_in = weight.values.shape
    return TiledMatrix(num_out, num_in, weight.values.numel() + 4 * num_out, widen_rows)
