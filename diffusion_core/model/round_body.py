"""The forward of one decoding round over static memory: no value of it is known to Python, so it can be captured.

It computes what :meth:`Transformer.forward` computes with a :class:`KVCache` (tests/model/test_captured.py), with
everything that changes from round to round read from :class:`RoundInputs` on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.layers import AdaptableLinear, RMSNorm, TransformerLayer
from diffusion_core.model.round_inputs import RoundInputs
from diffusion_core.model.round_ops import Change, RoundOps, RoundState
from diffusion_core.model.transformer import Transformer


def evaluate_round(
    model: Transformer,
    inputs: RoundInputs,
    memory: torch.Tensor,
    ops: RoundOps,
    *,
    adapter: GatedAdapter | None = None,
    taps: Sequence[int] = (),
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Normalised hidden states [R, D] of a round's rows, and the layer inputs [R, D] that ``taps`` asks for.

    Args:
        model: the base.
        inputs: the rows.
        memory: keys and values [2 * layers, 1, K, S, Dh]; the rows' own are written at ``inputs.targets``.
        ops: the steps between the products.
        adapter: acts on the rows that ``inputs`` says are slots.
        taps: as for :meth:`Transformer.forward`.
    """
    layers = [layer for layer in model.layers if isinstance(layer, TransformerLayer)]
    x = model.embed(inputs.ids.unsqueeze(0), adapter)[0]
    cos, sin = model.rope(inputs.positions.unsqueeze(0), x.dtype)
    shared = _Pass(ops, ops.begin(inputs, (cos[0, :, 0], sin[0, :, 0]), memory.shape[3]), adapter)
    tapped: list[torch.Tensor] = []
    normalised = ops.norm(x, layers[0].attention_norm)
    for number, layer in enumerate(layers):
        if number in taps:
            tapped.append(x)
        next_norm = layers[number + 1].attention_norm if number + 1 < len(layers) else model.norm
        keys_values = memory[2 * number, 0], memory[2 * number + 1, 0]
        x, normalised = shared.run_layer(layer, x, normalised, keys_values, next_norm)
    if len(layers) in taps:
        tapped.append(x)
    return normalised, tapped


class _Pass:
    """What all layers of one round share, and the run through a layer."""

    def __init__(self, ops: RoundOps, state: RoundState, adapter: GatedAdapter | None) -> None:
        self._ops, self._state, self._adapter = ops, state, adapter

    def run_layer(
        self,
        layer: TransformerLayer,
        x: torch.Tensor,
        normalised: torch.Tensor,
        keys_values: tuple[torch.Tensor, torch.Tensor],
        next_norm: RMSNorm,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual stream behind the layer, and its form for what comes next, each [R, D]."""
        ops, state, attention, mlp = self._ops, self._state, layer.attention, layer.mlp
        qkv, change = self._apply(attention.qkv_proj, normalised)
        queries = ops.store_rows(qkv, attention, keys_values, state, change)
        mixed, change = self._apply(attention.o_proj, ops.attend(queries, keys_values, state))
        x, normalised = ops.add_norm(x, mixed, layer.mlp_norm, state, change)
        gate_up, change = self._apply(mlp.gate_up_proj, normalised)
        inner = ops.gate(gate_up, state, change)
        y, change = self._apply(mlp.down_proj, inner)
        return ops.add_norm(x, y, next_norm, state, change)

    def _apply(self, linear: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, Change | None]:
        """A product, and what the adapter adds to it on slot rows."""
        assert isinstance(linear, AdaptableLinear)
        return self._ops.product(linear, x, self._adapter, self._state)
