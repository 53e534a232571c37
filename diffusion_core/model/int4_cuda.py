"""4-bit weights on a GPU, through torch's own kernel for bfloat16: numbers are widened in registers.

Whether the kernel is there and computes what is expected is tried out once on each device, against the widened weight;
where not (before compute capability 8.0, other activations, odd sizes), tiles are widened instead (tiled.py).
"""

from __future__ import annotations

from functools import cache

import torch

from diffusion_core.model.int4 import Int4Weight, quantize_int4, widen
from diffusion_core.model.quantization import GROUP_SIZE
from diffusion_core.model.tiled import tile_int4

# Steps of the kernel: outputs, and inputs that a thread block takes at a time.
_OUT_STEP = 8
_INNER_TILES = 8
_IN_STEP = 16 * _INNER_TILES


class CudaInt4Matrix:
    """An :class:`Int4Weight` in the order of torch's CUDA kernel, with the products of a ServingMatrix."""

    def __init__(self, weight: Int4Weight) -> None:
        self._num_out, self._num_in = weight.shape
        # The kernel wants the even input in the high half of a byte, as it is stored.
        self._packed: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack(weight.values, _INNER_TILES)
        self._by_group = weight.groups.transpose(0, 1).contiguous()
        self.num_bytes = weight.num_bytes

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in], computed in bfloat16, in ``x``'s dtype."""
        rows = x.reshape(-1, self._num_in).bfloat16().contiguous()
        y: torch.Tensor = torch.ops.aten._weight_int4pack_mm(rows, self._packed, GROUP_SIZE, self._by_group)
        y = y.to(x.dtype)
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], self._num_out)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`linear`, in float32."""
        return self.linear(x).float()


def fits_cuda_kernel(weight: Int4Weight) -> bool:
    """Whether the kernel takes a weight of this size on its device."""
    num_out, num_in = weight.shape
    device = weight.values.device
    return num_out % _OUT_STEP == 0 and num_in % _IN_STEP == 0 and _works_on(device.type, device.index)


@cache
def _works_on(device_type: str, index: int | None) -> bool:
    if device_type != "cuda":
        return False
    device = torch.device(device_type, index or 0)
    generator = torch.Generator().manual_seed(0)
    weight = quantize_int4(torch.randn(64, 2 * _IN_STEP, generator=generator).to(device))
    x = torch.randn(24, 2 * _IN_STEP, generator=generator).to(device, torch.bfloat16)
    try:
        found = CudaInt4Matrix(weight).linear(x).float()
    except (AttributeError, RuntimeError):
        return False
    exact = x.float() @ widen(weight, torch.float32).T
    plain = tile_int4(weight).linear(x).float()
    error, bound = (found - exact).norm() / exact.norm(), (plain - exact).norm() / exact.norm()
    return bool(error < 2 * bound + 1e-3)
