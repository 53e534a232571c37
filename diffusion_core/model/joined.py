"""Products that also compute an adapter's way down: one matrix holds a layer's weight and, below it, ``down``.

Slots then cost a round no products of their own. The layer's weight becomes a view of the joined matrix, so that
nothing is held twice. For devices where the number of kernels decides; a packed weight has no rows to join.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.layers import AdaptedLinear
from diffusion_core.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class JoinedProduct:
    """``weight`` [out + rank, in], ``bias`` [out + rank] or None, of which ``num_out`` are the layer's own."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    num_out: int
    up: torch.Tensor

    def apply(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's result [R, out] and the adapter's ``low`` [R, rank] of ``x`` [R, in]; views of one tensor."""
        whole = F.linear(x, self.weight, self.bias)
        return whole[:, : self.num_out], whole[:, self.num_out :]


@torch.no_grad()
def join_products(model: Transformer, adapter: GatedAdapter) -> dict[str, JoinedProduct]:
    """The joined product of every layer that ``adapter`` changes, by name; ``model`` goes on with views of them."""
    found: dict[str, JoinedProduct] = {}
    for linear in model.modules():
        if not isinstance(linear, AdaptedLinear):
            continue
        down, up = adapter.pair(linear.name)
        num_out = len(linear.weight)
        weight = torch.cat((linear.weight.detach(), down.detach()))
        bias = None
        if linear.bias is not None:
            bias = torch.cat((linear.bias.detach(), linear.bias.new_zeros(len(down))))
            linear.bias.data = bias[:num_out]
        linear.weight.data = weight[:num_out]
        found[linear.name] = JoinedProduct(weight, bias, num_out, up.detach().T.contiguous().T)
    return found
