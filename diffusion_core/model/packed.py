"""Weights reordered for the CPU's matrix kernels.

oneDNN multiplies from its own block order. Given a plain matrix it reorders, or takes a slower kernel, at every call;
with the order made once, a bfloat16 product of a few rows takes half the time. It gives the very same bits: each sum
is formed in the same order (tests/model/test_packed.py compares them).
"""

from __future__ import annotations

import torch
from torch import nn

from diffusion_core.model.layers import AdaptableLinear, AdaptedLinear

# oneDNN chooses the order for a number of rows; this is a decoding round's.
_TYPICAL_ROWS = 8


class PackedMatrix:
    """A weight [out, in] in oneDNN's order. It has no plain form any more: keep the weight where that is needed."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _TYPICAL_ROWS)
        self.num_bytes = weight.numel() * weight.element_size()

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """What ``F.linear(x, weight, bias)`` gives, for ``x`` [..., in]."""
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


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing helps: bfloat16 on a CPU that computes in it. float32 goes through another library."""
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linears(module: nn.Module) -> None:
    """Replace every :class:`AdaptedLinear` inside ``module`` by its packed form, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, AdaptedLinear):
                setattr(parent, name, PackedLinear(child))


def count_bytes(module: nn.Module) -> int:
    """Size of all weights inside ``module``, plain and packed."""
    packed = sum(child.matrix.num_bytes for child in module.modules() if isinstance(child, PackedLinear))
    return packed + sum(p.numel() * p.element_size() for p in module.parameters())
