"""4-bit weights on a CPU, through torch's own kernel: numbers are widened in registers while they are multiplied.

The kernel takes as long for each row as for the first: it is for the few rows of a decoding round, and a row's result
has the same bits whatever rides along. It computes in bfloat16 (sums in float32): with other activations they are
rounded on the way in, which is little beside 4 bits. Longer forwards widen a tile of outputs at a time instead, out of
the kernel's own order, so that no second copy of the weights is held.

That order is torch's affair and may change: :func:`why_no_int4_kernel` tries it out once.
"""

from __future__ import annotations

from functools import cache

import torch

from diffusion_core.model.int4 import Int4Weight, quantize_int4, unpack_numbers, widen, widen_numbers
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.quantization import GROUP_SIZE
from diffusion_core.model.tiled import TiledMatrix
from diffusion_core.native import compute_apart

# Outputs that the kernel computes together (AVX-512), and what it wants their number to be a multiple of.
_BLOCK = 64
_STEP = 16
_ROWS_AT_A_TIME = 1024  # the order is made from int32, eight times as wide: a part at a time


class Int4Matrix:
    """An :class:`Int4Weight` in the order of torch's CPU kernel, with the products of a ServingMatrix."""

    def __init__(self, weight: Int4Weight) -> None:
        self._num_out, self._num_in = weight.shape
        self._packed = _pack(weight.values)
        self._by_group = weight.groups.transpose(0, 1).contiguous()
        self.num_bytes = self._packed.numel() + 2 * weight.groups.numel()
        self._wide = TiledMatrix(self._num_out, self._num_in, self.num_bytes, self._widen_rows)

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in], in ``x``'s dtype."""
        rows = x.reshape(-1, self._num_in)
        if len(rows) > MAX_DECODE_ROWS:
            return self._wide.linear(x, bias)
        y: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows.bfloat16().contiguous(), self._packed, GROUP_SIZE, self._by_group
        )
        y = y.to(x.dtype)
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], self._num_out)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`linear`, in float32."""
        return self.linear(x).float()

    def _widen_rows(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        return widen_numbers(self._numbers(start, stop), self._by_group[:, start:stop].transpose(0, 1), dtype)

    def _numbers(self, start: int, stop: int) -> torch.Tensor:
        """The numbers uint8 [stop - start, in] out of the kernel's order.

        A block of 64 outputs stands as [in, 32]: output j in the low half of byte j, output 32 + j in the high half.
        In what is left behind the last whole block neighbours share a byte.
        """
        first, last = start // _BLOCK * _BLOCK, min(-(-stop // _BLOCK) * _BLOCK, self._num_out)
        whole = last // _BLOCK * _BLOCK
        stored = self._packed.view(-1)
        half = self._num_in // 2
        blocks = stored[first * half : whole * half].view(-1, self._num_in, _BLOCK // 2)
        numbers = torch.cat((blocks & 15, blocks >> 4), -1).transpose(1, 2).reshape(-1, self._num_in)
        if last > whole:
            tail = stored[whole * half : last * half].view(self._num_in, -1)
            tail = torch.stack((tail & 15, tail >> 4), -1).flatten(1).T
            numbers = torch.cat((numbers, tail))
        return numbers[start - first : stop - first]


def _pack(values: torch.Tensor) -> torch.Tensor:
    """``values`` [out, in / 2] in the kernel's order, a part at a time: whole blocks lie one behind the other."""
    parts = [
        torch.ops.aten._convert_weight_to_int4pack_for_cpu(unpack_numbers(part).int(), 1)
        for part in torch.split(values, _ROWS_AT_A_TIME)
    ]
    return torch.cat(parts)


def fits_kernel(weight: Int4Weight) -> bool:
    """Whether the kernel takes a weight of this size."""
    return weight.shape[0] % _STEP == 0


@cache
def why_no_int4_kernel() -> str:
    """Why this CPU or build of torch has no kernel for 4 bits; empty when it has, and it does what is needed here."""
    try:
        return "" if compute_apart(_is_as_expected) else "torch's int4 product is not the one that is expected"
    except (AttributeError, RuntimeError):
        return "this build of torch has no int4 product for this CPU"


def _is_as_expected() -> bool:
    generator = torch.Generator().manual_seed(0)
    weight = quantize_int4(torch.randn(2 * _BLOCK + _STEP, 4 * GROUP_SIZE, generator=generator))
    matrix = Int4Matrix(weight)
    if not torch.equal(matrix._widen_rows(0, len(weight.values), torch.float32), widen(weight, torch.float32)):
        return False
    x = torch.randn(MAX_DECODE_ROWS, 4 * GROUP_SIZE, generator=generator).bfloat16()
    whole = matrix.linear(x)
    if not all(torch.equal(matrix.linear(x[:rows]), whole[:rows]) for rows in (1, 2, 3, 4, 5, 8, 17, 64)):
        return False
    exact = x.double() @ widen(weight, torch.float64).T
    return float((whole - exact).norm() / exact.norm()) < 0.01
