"""Layers of the one Transformer: normalisation, attention, feed-forward. Shape letters: see ``rope.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kv_cache import ContextKeys
from diffusion_core.model.masks import Visibility
from diffusion_core.model.parts import Part
from diffusion_core.model.rope import rotate
from diffusion_core.model.tiles import TiledSpan


@dataclass(frozen=True, slots=True)
class ForwardContext:
    """What all layers of one forward share.

    ``tables``: rotary cosine and sine of the rows; ``visible``: of [B or 1, T or 1, S]; ``cache``: None in training;
    ``adapter`` acts on the rows from ``first_slot`` on. ``spans``: while decoding, the rows in tiles (tiles.py); empty
    otherwise. ``parts``: the rows of each sequence where several share the forward, in place of mask, cache and spans.
    """

    tables: tuple[torch.Tensor, torch.Tensor]
    visible: Visibility
    cache: ContextKeys | None
    adapter: GatedAdapter | None
    first_slot: int
    spans: tuple[TiledSpan, ...] = ()
    parts: tuple[Part, ...] = ()


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` [..., size]."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


class AdaptableLinear(nn.Module):
    """A linear layer that a gated adapter may change for slot rows only.

    ``name`` is the layer's key inside the adapter. Clean rows never pass through the adapter, not even multiplied by
    zero, so their results are bit for bit those of the base.
    """

    name: str

    def run(self, x: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """Apply to ``x`` [B, T, in]; the adapter changes the slot rows."""
        y: torch.Tensor = self(x)
        adapter, first_slot = context.adapter, context.first_slot
        if adapter is None or first_slot >= x.shape[1]:
            return y
        if first_slot == 0:
            return adapter.change(self.name, x, y)
        slots = y[:, first_slot:]
        changed = adapter.change(self.name, x[:, first_slot:], slots)
        return y if changed is slots else torch.cat((y[:, :first_slot], changed), dim=1)


class AdaptedLinear(AdaptableLinear, nn.Linear):
    """An adaptable layer with plain weights: for training, for every device, and to be packed."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, name: str) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias=bias)
        self.name = name


class Attention(nn.Module):
    """Grouped-query attention with rotary positions, optional biases (Qwen2) and head norms (Qwen3)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.layer = layer
        qkv_size = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        prefix = f"layers.{layer}.attention"
        self.qkv_proj = AdaptedLinear(config.hidden_size, qkv_size, bias=config.qkv_bias, name=f"{prefix}.qkv_proj")
        self.o_proj = AdaptedLinear(
            config.num_heads * config.head_dim, config.hidden_size, bias=False, name=f"{prefix}.o_proj"
        )
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def project(self, x: torch.Tensor, context: ForwardContext) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rotated queries [B, T, H, Dh], rotated keys [B, K, T, Dh] and values [B, K, T, Dh] of rows ``x``."""
        batch, rows, _ = x.shape
        qkv = self.qkv_proj.run(x, context).view(batch, rows, -1, self.head_dim)
        H, K = self.num_heads, self.num_kv_heads
        if self.q_norm is None or self.k_norm is None:
            turned = rotate(qkv[:, :, : H + K], *context.tables)
            queries, keys = turned[:, :, :H], turned[:, :, H:]
        else:
            queries = rotate(self.q_norm(qkv[:, :, :H]), *context.tables)
            keys = rotate(self.k_norm(qkv[:, :, H : H + K]), *context.tables)
        return queries, keys.transpose(1, 2), qkv[:, :, H + K :].transpose(1, 2)

    def attend_in_tiles(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Sequence[TiledSpan]
    ) -> torch.Tensor:
        """As :meth:`attend` for the few rows of a decoding round, a fixed number of rows at a time.

        Each tile is a batch entry of its own, over as many keys as the last one its rows see, rounded up: the kernel
        sees the same shape for a row whatever rides along, so its result is the same bits. `verified` rests on that.
        """
        rows, group = queries.shape[1], self.num_heads // self.num_kv_heads
        single = queries.view(rows, self.num_kv_heads, group, self.head_dim)
        parts = []
        for span in spans:
            tiled = span.tile(single[span.start : span.stop])
            shape = (len(tiled), -1, -1, -1)
            seen, told = keys[:, :, : span.num_keys].expand(shape), values[:, :, : span.num_keys].expand(shape)
            parts.append(span.untile(F.scaled_dot_product_attention(tiled, seen, told, attn_mask=span.bias), group))
        mixed = parts[0] if len(parts) == 1 else torch.cat(parts)
        return mixed.reshape(1, rows, self.num_heads * self.head_dim)

    def attend_apart(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, parts: Sequence[Part]
    ) -> torch.Tensor:
        """The rows of each part, which is another sequence, over its own keys and values."""
        mixed = queries.new_empty(1, queries.shape[1], self.num_heads * self.head_dim)
        for part in parts:
            seen, told = part.cache.write(self.layer, part.take(keys, 2), part.take(values, 2))
            part.put(mixed, self.attend_in_tiles(part.take(queries, 1), seen, told, part.spans))
        return mixed

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: Visibility
    ) -> torch.Tensor:
        """Attention of ``queries`` [B, T, H, Dh] over [B, K, S, Dh] under ``visible``, of [B or 1, T or 1, S].

        The query heads that share a key head are laid out as extra rows, so keys and values are never repeated.
        """
        batch, rows = queries.shape[:2]
        K, group = self.num_kv_heads, self.num_heads // self.num_kv_heads
        grouped = queries.view(batch, rows, K, group, self.head_dim).permute(0, 2, 3, 1, 4)
        grouped = grouped.reshape(batch, K, group * rows, self.head_dim)
        bias = visible.bias(group, queries.dtype)
        mixed = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=bias)
        mixed = mixed.view(batch, K, group, rows, self.head_dim).permute(0, 3, 1, 2, 4)
        return mixed.reshape(batch, rows, self.num_heads * self.head_dim)

    def forward(self, x: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """Rows ``x`` [B, T, D] attend to the cache and to each other."""
        queries, keys, values = self.project(x, context)
        if context.parts:
            return self.o_proj.run(self.attend_apart(queries, keys, values, context.parts), context)
        if context.cache is not None:
            keys, values = context.cache.write(self.layer, keys, values)
        if context.spans:
            return self.o_proj.run(self.attend_in_tiles(queries, keys, values, context.spans), context)
        return self.o_proj.run(self.attend(queries, keys, values, context.visible), context)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), gate and up in one matrix."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        D, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = AdaptedLinear(D, 2 * inner, bias=False, name=f"layers.{layer}.mlp.gate_up_proj")
        self.down_proj = AdaptedLinear(inner, D, bias=False, name=f"layers.{layer}.mlp.down_proj")

    def forward(self, x: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """Apply to ``x`` [B, T, D]."""
        gate, up = self.gate_up_proj.run(x, context).chunk(2, dim=-1)
        return self.down_proj.run(F.silu(gate) * up, context)


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each normalised before and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config, layer)

    def forward(self, x: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """Apply to rows ``x`` [B, T, D]."""
        x = x + self.attention(self.attention_norm(x), context)
        return x + self.mlp(self.mlp_norm(x), context)  # type: ignore[no-any-return]
