"""The steps of a decoding round between its matrix products, each one call: what a device may do in one kernel.

:class:`PlainOps` is the reference, in torch's own operations, and runs everywhere. ``round_triton.py`` has the same
steps as single kernels for CUDA. A round is small: on a GPU the number of kernels decides how long it takes.
Shape letters: see ``rope.py``; a round is one sequence, so there is no B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.layers import AdaptableLinear, Attention, RMSNorm
from diffusion_core.model.rope import rotate
from diffusion_core.model.round_inputs import RoundInputs

# Keys and values of one layer, each [K, S, Dh]: all of the memory that a sequence lives in.
KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class RoundState:
    """What all layers of one round share.

    ``rotary``: cosine and sine of the rows, each [R, Dh]. ``targets`` int64 [R]: where keys and values go.
    ``bias`` [R, 1, 1, S]: 0 where a row sees a key, else minus infinity, in the model's dtype. Both are None where
    kernels read the inputs themselves.
    """

    inputs: RoundInputs
    rotary: tuple[torch.Tensor, torch.Tensor]
    targets: torch.Tensor | None = None
    bias: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What an adapter adds to a product on slot rows, while it is not yet added: ``scale * low @ up.T``.

    ``low`` [R, rank] may be a part of wider rows; ``up`` is [out, rank].
    """

    low: torch.Tensor
    up: torch.Tensor
    scale: float


class RoundOps(Protocol):
    """The products and the steps between them; ``change``, where given, is added to what comes from a product."""

    def begin(self, inputs: RoundInputs, rotary: tuple[torch.Tensor, torch.Tensor], num_keys: int) -> RoundState:
        """What is computed once a round; ``num_keys`` is the length of the cache's memory."""
        ...

    def product(
        self, linear: AdaptableLinear, x: torch.Tensor, adapter: GatedAdapter | None, state: RoundState
    ) -> tuple[torch.Tensor, Change | None]:
        """``linear`` of ``x`` [R, in], [R, out], and what is still to be added to it on slot rows.

        Clean rows keep the base's very bits.
        """
        ...

    def norm(self, x: torch.Tensor, norm: RMSNorm) -> torch.Tensor:
        """``norm(x)`` [R, D]."""
        ...

    def add_norm(
        self, x: torch.Tensor, delta: torch.Tensor, norm: RMSNorm, state: RoundState, change: Change | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``x + delta`` and its normalised form, each [R, D]."""
        ...

    def store_rows(
        self,
        qkv: torch.Tensor,
        attention: Attention,
        memory: KeysValues,
        state: RoundState,
        change: Change | None = None,
    ) -> torch.Tensor:
        """Write the rows' rotated keys and their values into ``memory``; rotated queries [R, H, Dh].

        ``qkv`` is [R, (H + 2 K) * Dh].
        """
        ...

    def attend(self, queries: torch.Tensor, memory: KeysValues, state: RoundState) -> torch.Tensor:
        """Attention of ``queries`` [R, H, Dh] over all keys that each row sees, [R, H * Dh]."""
        ...

    def gate(self, gate_up: torch.Tensor, state: RoundState, change: Change | None = None) -> torch.Tensor:
        """``silu(gate) * up`` [R, I] of [R, 2 I]."""
        ...


class PlainOps:
    """The reference, in torch's own operations. Its products are complete: nothing is left to be added."""

    def begin(self, inputs: RoundInputs, rotary: tuple[torch.Tensor, torch.Tensor], num_keys: int) -> RoundState:
        """Compute the mask over the cache once, as a bias."""
        visible = inputs.visibility(num_keys)
        bias = torch.zeros(visible.shape, dtype=rotary[0].dtype, device=visible.device)
        bias.masked_fill_(~visible, float("-inf"))
        return RoundState(inputs, rotary, inputs.targets, bias[:, None, None])

    def product(
        self, linear: AdaptableLinear, x: torch.Tensor, adapter: GatedAdapter | None, state: RoundState
    ) -> tuple[torch.Tensor, None]:
        """What the adapter adds is computed for every row, and taken for slot rows."""
        y: torch.Tensor = linear(x)
        if adapter is None:
            return y, None
        return torch.where((state.inputs.is_slot == 1).unsqueeze(1), adapter.add_delta(linear.name, x, y), y), None

    def norm(self, x: torch.Tensor, norm: RMSNorm) -> torch.Tensor:
        """As the model's own forward."""
        return norm(x)  # type: ignore[no-any-return]

    def add_norm(
        self, x: torch.Tensor, delta: torch.Tensor, norm: RMSNorm, state: RoundState, change: Change | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As the model's own forward."""
        x = x + add_change(delta, state, change)
        return x, norm(x)

    def store_rows(
        self,
        qkv: torch.Tensor,
        attention: Attention,
        memory: KeysValues,
        state: RoundState,
        change: Change | None = None,
    ) -> torch.Tensor:
        """Head norms where there are any, rotation, and two writes at places that only the device knows."""
        H, K = attention.num_heads, attention.num_kv_heads
        heads = add_change(qkv, state, change).reshape(len(qkv), -1, attention.head_dim)
        queries, own_keys = heads[:, :H], heads[:, H : H + K]
        if attention.q_norm is not None and attention.k_norm is not None:
            queries, own_keys = attention.q_norm(queries), attention.k_norm(own_keys)
        cos, sin = (table.unsqueeze(1) for table in state.rotary)
        keys, values = memory
        assert state.targets is not None
        turned = rotate(torch.cat((queries, own_keys), dim=1), cos, sin)
        keys.index_copy_(1, state.targets, turned[:, H:].transpose(0, 1))
        values.index_copy_(1, state.targets, heads[:, H + K :].transpose(0, 1))
        return turned[:, :H]

    def attend(self, queries: torch.Tensor, memory: KeysValues, state: RoundState) -> torch.Tensor:
        """Each row is a batch entry of its own over all of the memory, so its result is its own (DECISIONS 1, 11)."""
        (rows, num_heads, size), (keys, values) = queries.shape, memory
        assert state.bias is not None
        grouped = queries.reshape(rows, len(keys), num_heads // len(keys), size)
        mixed = F.scaled_dot_product_attention(
            grouped, keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), attn_mask=state.bias
        )
        return mixed.reshape(rows, num_heads * size)

    def gate(self, gate_up: torch.Tensor, state: RoundState, change: Change | None = None) -> torch.Tensor:
        """As the model's own forward."""
        gate, up = add_change(gate_up, state, change).chunk(2, dim=-1)
        return F.silu(gate) * up


def add_change(y: torch.Tensor, state: RoundState, change: Change | None) -> torch.Tensor:
    """``y`` [R, out] with ``change`` added on slot rows; clean rows keep their bits."""
    if change is None:
        return y
    changed = torch.addmm(y, change.low, change.up.T, alpha=change.scale)
    return torch.where((state.inputs.is_slot == 1).unsqueeze(1), changed, y)
