"""Weights reordered for the CPU's matrix kernels.

oneDNN multiplies from its own block order. Given a plain matrix it reorders, or takes a slower kernel, at every call;
with the order made once, a product of a few rows takes half the time in bfloat16 and a third in float32.

Decoding rests on a property of these kernels that torch's plain float32 product lacks: a row's result has the same
bits whatever number of rows rides along. With AMX that ends at 32 rows, where another kernel begins: a decoding round
with more is multiplied in parts. Packed and plain products differ by another order of summation, near 1e-6 in float32
and by at most a rounding in bfloat16 (tests/model/test_packed.py holds all of it).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Protocol

import torch
from torch import nn

from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.model.int4 import Int4Weight, quantize_int4
from diffusion_core.model.int4_cpu import Int4Matrix, fits_kernel, why_no_int4_kernel
from diffusion_core.model.int4_cuda import CudaInt4Matrix, fits_cuda_kernel
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.layers import AdaptableLinear, AdaptedLinear
from diffusion_core.model.native_matrix import NativeMatrix
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import (
    QuantizedMatrix,
    QuantizedWeight,
    quantize_weight,
    why_not_eight_bits,
    why_not_quantized,
)
from diffusion_core.model.tiled import tile_int4, tile_int8
from diffusion_core.native import compute_apart

PAIRED_LAYER = ".gate_up_proj"  # of its name: its halves are gate and up
# oneDNN chooses the order for a number of rows; this is a decoding round's.
_TYPICAL_ROWS = 8
# Where equal rows are tried: sizes of small models with sums of every depth, and both sides of where kernels change.
_TRIED_SIZES = ((1152, 896), (896, 4864), (256, 8960))
_TRIED_ROWS = (3, 8, 15, 16, 17, 31, 32, 33, 64, 65, MAX_DECODE_ROWS)


class ServingMatrix(Protocol):
    """A weight [out, in] laid out for the kernels of a CPU."""

    num_bytes: int

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in], in ``x``'s dtype."""
        ...

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """``F.linear(x, weight)`` in float32."""
        ...


class PackedMatrix:
    """A weight [out, in] in oneDNN's order. It has no plain form any more: keep the weight where that is needed."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TYPICAL_ROWS)
        self._max_rows = max_equal_rows(weight.dtype)
        self.num_bytes = weight.numel() * weight.element_size()

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in]; the sums are in another order."""
        num_rows = x.numel() // x.shape[-1]
        if self._max_rows < num_rows <= MAX_DECODE_ROWS:
            rows, step = x.reshape(num_rows, -1), self._max_rows
            parts = []
            for start in range(0, num_rows, step):
                # A single row has a kernel of its own: one that is left over is multiplied with the row before.
                first = min(start, num_rows - 2)
                parts.append(self._multiply(rows[first : start + step], bias)[start - first :])
            return torch.cat(parts).view(*x.shape[:-1], -1)
        return self._multiply(x, bias)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """The product in float32, rounded to the weight's dtype before."""
        return self.linear(x).float()

    def _multiply(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return _multiply(x, self._packed, bias)


def _multiply(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y


@cache
def max_equal_rows(dtype: torch.dtype) -> int:
    """Up to how many rows a row's product has the same bits on this CPU, at most :data:`MAX_DECODE_ROWS`; tried out."""
    return compute_apart(lambda: min(_try_rows(num_out, num_in, dtype) for num_out, num_in in _TRIED_SIZES))


def _try_rows(num_out: int, num_in: int, dtype: torch.dtype) -> int:
    """As :func:`max_equal_rows` for a weight of one size."""
    generator = torch.Generator().manual_seed(0)
    # Random numbers take longer than products; a part of the outputs is enough of them. Every product comes twice, once
    # with the other sign: what is left of a sum is what its order made of it, which rounding to bfloat16 would hide.
    places = torch.randperm(num_in, generator=generator)
    half = torch.randn(128, num_in // 2, generator=generator)
    weight = torch.cat((half, -half), 1)[:, places].repeat(num_out // 128, 1).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)
    rows = torch.randn(MAX_DECODE_ROWS, num_in // 2, generator=generator).repeat(1, 2)[:, places].to(dtype)
    few = [2] * 8 + [8] * ((MAX_DECODE_ROWS - 16) // 8)
    expected = torch.cat([_multiply(part, packed) for part in torch.split(rows, few)])
    for number in _TRIED_ROWS:
        if not torch.equal(_multiply(rows[:number], packed), expected[:number]):
            return max(limit for limit in (2, 8, 16, 32, 64) if limit < number)
    return MAX_DECODE_ROWS


class PackedLinear(AdaptableLinear):
    """An :class:`AdaptedLinear` for serving on a CPU; a gated adapter changes its slot rows alike."""

    def __init__(self, name: str, matrix: ServingMatrix, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.name, self.matrix = name, matrix
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to ``x`` [..., in]."""
        return self.matrix.linear(x, self.bias)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing helps: on a CPU, float32, and bfloat16 where the CPU computes in it."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def pack_linear(linear: AdaptedLinear) -> PackedLinear:
    """The layer with its weights in oneDNN's order, in their dtype."""
    return PackedLinear(linear.name, PackedMatrix(linear.weight), linear.bias)


def quantize_linear(linear: AdaptedLinear, quantization: Quantization, device: torch.device) -> PackedLinear:
    """The layer with its weights in 8 or 4 bits on that device."""
    plain = linear.weight.detach().to(device)
    weight = quantize_int4(plain) if quantization is Quantization.INT4 else quantize_weight(plain)
    return PackedLinear(linear.name, serving_matrix(weight, linear.name), linear.bias)


def layer_packer(quantization: Quantization, device: torch.device) -> Callable[[AdaptedLinear], PackedLinear]:
    """What lays a layer out for serving in that form; plain layers for a CPU only."""
    if quantization is Quantization.NONE:
        return pack_linear
    return partial(quantize_linear, quantization=quantization, device=device)


def why_not_served(quantization: Quantization, device_type: str) -> str:
    """Why weights in that form cannot serve on this kind of device; empty when they can.

    Weights in 4 bits always can: where there is no kernel they are widened a tile at a time. So can those in 8 bits on
    a GPU; on a CPU they are for speed, and serve only where their products are exact.
    """
    if quantization is Quantization.INT8 and device_type == "cpu":
        return why_not_eight_bits("cpu")
    return ""


def serving_matrix(weight: QuantizedWeight | Int4Weight, name: str = "") -> ServingMatrix:
    """A quantised weight as its device multiplies it best; ``name`` is the layer's."""
    on_cpu = weight.values.device.type == "cpu"
    if isinstance(weight, Int4Weight):
        if on_cpu and fits_kernel(weight) and not why_no_int4_kernel():
            return Int4Matrix(weight)
        return CudaInt4Matrix(weight) if fits_cuda_kernel(weight) else tile_int4(weight)
    if on_cpu and not why_no_kernels():
        return NativeMatrix(weight, paired=name.endswith(PAIRED_LAYER) and weight.values.shape[0] % 32 == 0)
    return QuantizedMatrix(weight) if on_cpu and not why_not_quantized("cpu") else tile_int8(weight)


def replace_linears(module: nn.Module, make: Callable[[AdaptedLinear], AdaptableLinear]) -> None:
    """Replace every :class:`AdaptedLinear` inside ``module`` by what ``make`` makes of it, in place, one by one."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, AdaptedLinear):
                setattr(parent, name, make(child))


@torch.no_grad()
def merge_deltas(
    module: nn.Module,
    delta: Callable[[str], tuple[torch.Tensor, torch.Tensor, float]],
    make: Callable[[AdaptedLinear], AdaptableLinear] = lambda linear: linear,
) -> None:
    """Add ``scale * up @ down`` to the weight of every :class:`AdaptedLinear` inside ``module``, in place.

    ``delta(name)`` gives ``up`` [out, rank], ``down`` [rank, in] and the scale. Product and sum are one operation: with
    wide copies of each weight, loading would take twice the time. ``make`` packs each layer at once, so that no second
    copy of all is held.
    The old weight is left as it was: it may be the mapping of a file.
    """

    def merge(linear: AdaptedLinear) -> AdaptableLinear:
        weight = linear.weight
        up, down, scale = delta(linear.name)
        merged = torch.addmm(weight, up.to(weight), down.to(weight), alpha=scale)
        linear.weight = nn.Parameter(merged, requires_grad=False)
        return make(linear)

    replace_linears(module, merge)


def count_bytes(module: nn.Module) -> int:
    """Size of all weights inside ``module``, plain and packed."""
    packed = sum(child.matrix.num_bytes for child in module.modules() if isinstance(child, PackedLinear))
    return packed + sum(p.numel() * p.element_size() for p in module.parameters())
