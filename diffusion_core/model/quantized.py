"""Weights in 8 bits for the CPU: half the bytes of bfloat16, and a forward of a few rows is bound by bytes.

A weight is int8 with one scale for each output. A row of activations is made of integers with one scale of its own
when it is multiplied, and the products are summed as integers (oneDNN, with VNNI or AMX where the CPU has them). A
row's result is therefore the same bits whatever rides along: integer sums do not depend on their order, and rows share
nothing else.

Nearly all of the loss of 8 bits is in the activations: where a few entries tower over a row, the others are left
without bits. Rows are therefore *split*: a row becomes the sum of two int8 rows, the second 128 times finer, which
makes 15 bits. The weights are still read once, and a product of few rows takes as long as before. Of many rows the two
halves are multiplied one after the other, the second added to the first by the kernel itself: reading the weights again
costs little then, and writing twice as many results a lot.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import torch

from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.native import compute_apart

_LIMIT = 127  # -128 has no opposite
_FINER = 128  # what rounding leaves is at most half a step; a power of two, so that scaling by it is exact
_TINY = 1e-30  # added to scales: a row of zeros is not divided by zero
_TYPICAL_ROWS = 8
# From here on the halves of rows are multiplied in turn. A decoding round never is: it may be bound by bytes.
_MANY_ROWS = 128
_UNSIGNED_ZERO = 128  # added to a signed number, which is to flip its highest bit


@dataclass(frozen=True)
class QuantizedWeight:
    """``values`` int8 [out, in] and ``scales`` float32 [out]: the weight is their product, row by row."""

    values: torch.Tensor
    scales: torch.Tensor


def quantize_weight(weight: torch.Tensor) -> QuantizedWeight:
    """The nearest 8-bit form of ``weight`` [out, in]; rows are independent of each other."""
    wide = weight.detach().float()
    scales = wide.abs().amax(1) * (1 / _LIMIT) + _TINY
    return QuantizedWeight((wide / scales.unsqueeze(1)).round_().to(torch.int8), scales)


class QuantizedMatrix:
    """A :class:`QuantizedWeight` in oneDNN's order, with the products of :class:`PackedMatrix`.

    Rows that are not ``split`` take 8 bits instead of 15: for comparison, the product is much less exact.
    """

    def __init__(self, weight: QuantizedWeight, *, split: bool = True) -> None:
        num_out, num_in = weight.values.shape
        self._packed: torch.Tensor = torch.ops.onednn.qlinear_prepack(weight.values, [_TYPICAL_ROWS, num_in])
        # The scales are copied: they may be the mapping of a file.
        self._scales = weight.scales.clone()
        self._zeros = torch.zeros(num_out, dtype=torch.int64)
        self._split = split
        self.num_bytes = weight.values.numel() + 4 * num_out

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in], summed in int32, scaled in float32, in ``x``'s dtype."""
        y = self.scores(x)
        if bias is not None:
            y += bias
        return y.to(x.dtype)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`linear`, in float32."""
        rows = x.reshape(-1, x.shape[-1])
        scales = rows.abs().amax(1, keepdim=True).float() * (1 / _LIMIT) + _TINY
        scaled = rows / scales
        if not self._split:
            y = self._multiply(scaled.round_().to(torch.int8))
        elif len(rows) < _MANY_ROWS:
            y = self._multiply_together(scaled)
        else:
            y = self._multiply_in_turn(scaled)
        return y.mul_(scales).view(*x.shape[:-1], -1)

    def _multiply_together(self, scaled: torch.Tensor) -> torch.Tensor:
        """Both halves of the rows in one product, which reads the weights once."""
        num_rows = len(scaled)
        both = torch.empty(2 * num_rows, scaled.shape[1], dtype=torch.int8)
        coarse = scaled.round()
        both[:num_rows] = coarse
        both[num_rows:] = _what_is_left(scaled, coarse)
        y = self._multiply(both)
        # One operation: its product is exact, so that it does not matter where it is fused and rounded once.
        return y[:num_rows].add_(y[num_rows:], alpha=1 / _FINER)

    def _multiply_in_turn(self, scaled: torch.Tensor) -> torch.Tensor:
        """The same numbers in two products; the second is added in its kernel, where its scaling is exact as well."""
        coarse = scaled.round()
        y = self._multiply(coarse.to(torch.int8))
        return self._multiply(_what_is_left(scaled, coarse).to(torch.int8), 1 / _FINER, y)

    def _multiply(self, rows: torch.Tensor, scale: float = 1.0, to: torch.Tensor | None = None) -> torch.Tensor:
        """int8 [R, in] -> float32 [R, out]: the integer sum times the output's scale and ``scale``, added to ``to``."""
        zero = 0
        if not multiplies_tiles():
            # The same number less its zero, and so the same sum.
            zero, rows = _UNSIGNED_ZERO, rows.view(torch.uint8) ^ _UNSIGNED_ZERO
        weight, result = (self._packed, self._scales, self._zeros), (1.0, 0, torch.float32)
        linear = torch.ops.onednn.qlinear_pointwise
        y: torch.Tensor
        if to is None:
            y = linear(rows, scale, zero, *weight, None, *result, "none", [], "")
        else:
            y = linear.binary(rows, scale, zero, *weight, to, None, *result, 1.0, 0, "sum", 1.0, "none", [], "")
        return y


def _what_is_left(scaled: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
    """The second, finer half of rows; ``scaled`` is overwritten by it."""
    return scaled.sub_(coarse).mul_(_FINER).round_()


@cache
def multiplies_tiles() -> bool:
    """Whether oneDNN multiplies tiles on this CPU (AMX), and so signed rows by signed weights.

    VNNI alone takes unsigned by signed numbers; oneDNN computes anything else element by element, a hundred times as
    long. It may have been told to do with less than the CPU has.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    return torch.cpu._is_amx_tile_supported() and ("AMX" in limit.upper() or limit.upper() in ("ALL", "DEFAULT"))


def why_not_eight_bits(device_type: str) -> str:
    """Why weights in 8 bits cannot serve on this kind of device; empty when they can: by our own kernels or torch's."""
    return "" if device_type == "cpu" and not why_no_kernels() else why_not_quantized(device_type)


@cache
def why_not_quantized(device_type: str) -> str:
    """Why torch's products of weights in 8 bits cannot serve on this kind of device; empty when they can.

    They are tried: with AVX2 alone oneDNN adds pairs of products in 16 bits, which overflow.
    """
    if device_type != "cpu":
        return f"the kernels are for the CPU, and the device is {device_type}"
    try:
        return "" if compute_apart(_multiplies_exactly) else "sums overflow on this CPU, which has no VNNI"
    except (AttributeError, RuntimeError):
        return "this build of torch has no int8 products for this CPU"


def _multiplies_exactly() -> bool:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-_LIMIT, _LIMIT + 1, (48, 192), generator=generator, dtype=torch.int8)
    rows = torch.randint(-_LIMIT, _LIMIT + 1, (33, 192), generator=generator, dtype=torch.int8)
    values[0], rows[0], rows[1] = _LIMIT, _LIMIT, -_LIMIT
    matrix = QuantizedMatrix(QuantizedWeight(values, torch.ones(48)))
    expected = (rows.double() @ values.double().T).float()
    finer = 1 / _FINER
    return all(
        torch.equal(matrix._multiply(some), found)
        and torch.equal(matrix._multiply(some, finer, found.clone()), found.add(found, alpha=finer))
        for some, found in ((rows[:n].contiguous(), expected[:n]) for n in (1, 2, 8, 33))
    )
