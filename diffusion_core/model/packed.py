"""Weights reordered for the CPU's matrix kernels.

oneDNN multiplies from its own block order. Given a plain matrix it reorders, or takes a slower kernel, at every call;
with the order made once, a product of a few rows takes half the time in bfloat16 and a third in float32.

Decoding rests on a property of these kernels that torch's plain float32 product lacks: a row's result has the same
bits whatever number of rows rides along. In bfloat16 the products are moreover the very bits of the plain ones, in
float32 they differ from them by another order of summation, near 1e-6 (tests/model/test_packed.py holds all three).

With AMX the property does not hold in bfloat16: oneDNN sums in another order by the number of rows. There the rows of
a decoding round are multiplied in tiles of a fixed number of rows, so that every row meets the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.layers import AdaptableLinear, AdaptedLinear

# oneDNN chooses the order for a number of rows; this is a decoding round's.
_TYPICAL_ROWS = 8
# Rows of AMX's own tiles: up to here a product takes as long as that of one row.
_TILE_ROWS = 16


class PackedMatrix:
    """A weight [out, in] in oneDNN's order. It has no plain form any more: keep the weight where that is needed."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TYPICAL_ROWS)
        self.num_bytes = weight.numel() * weight.element_size()
        self._is_tiled = depends_on_rows(weight.dtype)

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in]; float32 sums in another order."""
        rows = x.numel() // x.shape[-1]
        if not self._is_tiled or rows == _TILE_ROWS or rows > MAX_DECODE_ROWS:
            return self._multiply(x, bias)
        padded = F.pad(x.reshape(rows, -1), (0, 0, 0, -rows % _TILE_ROWS))
        starts = range(0, len(padded), _TILE_ROWS)
        parts = [self._multiply(padded[start : start + _TILE_ROWS], bias) for start in starts]
        y = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y[:rows].view(*x.shape[:-1], -1)

    def _multiply(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")
        return y


class PackedLinear(AdaptableLinear):
    """An :class:`AdaptedLinear` for serving on a CPU; a gated adapter changes its slot rows alike."""

    def __init__(self, linear: AdaptedLinear) -> None:
        super().__init__()
        self.name = linear.name
        self.matrix = PackedMatrix(linear.weight)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to ``x`` [..., in]."""
        return self.matrix.linear(x, self.bias)


def depends_on_rows(dtype: torch.dtype) -> bool:
    """Whether this CPU's kernels sum a row's products in an order that depends on the number of rows."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return dtype == torch.bfloat16 and bool(has_amx())


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing helps: on a CPU, float32, and bfloat16 where the CPU computes in it."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def pack_linears(module: nn.Module) -> None:
    """Replace every :class:`AdaptedLinear` inside ``module`` by its packed form, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, AdaptedLinear):
                setattr(parent, name, PackedLinear(child))


@torch.no_grad()
def merge_deltas(module: nn.Module, delta: Callable[[str], torch.Tensor], *, pack: bool) -> None:
    """Add ``delta(name)`` [out, in] to the weight of every :class:`AdaptedLinear` inside ``module``, in place.

    The sum is made in float32. With ``pack`` each layer is packed at once, so that no second copy of all is held.
    The old weight is left as it was: it may be the mapping of a file.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, AdaptedLinear):
                continue
            weight = child.weight
            merged = weight.float() + delta(child.name).to(weight.device)
            child.weight = nn.Parameter(merged.to(weight.dtype), requires_grad=False)
            if pack:
                setattr(parent, name, PackedLinear(child))


def count_bytes(module: nn.Module) -> int:
    """Size of all weights inside ``module``, plain and packed."""
    packed = sum(child.matrix.num_bytes for child in module.modules() if isinstance(child, PackedLinear))
    return packed + sum(p.numel() * p.element_size() for p in module.parameters())
