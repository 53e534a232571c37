"""The draft head: a few layers that denoise a block from the base model's hidden states of the clean tokens.

The other kind of drafter (training.md section 2). Its layers read one fused feature per committed token, made from
the base's hidden states at several depths, as extra keys and values; embedding and output head are the base's.
A draft costs ``num_layers`` layers instead of the whole model, and the base's forward carries no slot rows.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.layers import ForwardContext, RMSNorm, TransformerLayer
from diffusion_core.model.masks import with_cache
from diffusion_core.model.rope import RotaryEmbedding
from diffusion_core.model.tensors import copy_tensors
from diffusion_core.model.transformer import Transformer


class DraftHead(nn.Module):
    """Layers that fill a block in one call.

    ``tap_layers`` are numbers for :meth:`Transformer.forward`'s ``taps``. Every tap is normalised on its own before
    fusing, because the scale of hidden states grows by orders of magnitude with depth.
    """

    def __init__(self, config: ModelConfig, *, num_layers: int, tap_layers: tuple[int, ...]) -> None:
        super().__init__()
        if not tap_layers or max(tap_layers) > config.num_layers or min(tap_layers) < 0:
            raise CheckpointError(f"draft head: tap_layers {tap_layers} must lie within 0 to {config.num_layers}")
        if list(tap_layers) != sorted(set(tap_layers)):
            raise CheckpointError(f"draft head: tap_layers {tap_layers} must ascend without repeats")
        self.tap_layers = tap_layers
        self.config = dataclasses.replace(config, num_layers=num_layers)
        self.mask_embedding = nn.Parameter(torch.zeros(config.hidden_size))
        self.tap_norms = nn.ModuleList(RMSNorm(config.hidden_size, config.rms_norm_eps) for _ in tap_layers)
        self.fuse = nn.Linear(len(tap_layers) * config.hidden_size, config.hidden_size, bias=False)
        self.layers = nn.ModuleList(TransformerLayer(self.config, i) for i in range(num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rope = RotaryEmbedding(config)

    def new_cache(self, capacity: int, like: KVCache) -> KVCache:
        """A cache for the head's own keys and values, of the kind of the base's cache."""
        keys, _ = like.committed(0)
        return KVCache(self.config, capacity=capacity, dtype=keys.dtype, device=keys.device)

    def read(self, tapped: list[torch.Tensor], first_position: int, cache: KVCache) -> None:
        """Commit the features of clean tokens at ``first_position`` on; ``tapped``: one [1, T, D] per tap layer."""
        features = self.fuse(torch.cat([norm(x) for norm, x in zip(self.tap_norms, tapped, strict=True)], dim=-1))
        rows = features.shape[1]
        assert cache.length == first_position, "the head reads every committed token once, in order"
        cache.reserve(first_position + rows)
        positions = torch.arange(first_position, first_position + rows, device=features.device).unsqueeze(0)
        context = ForwardContext(self.rope(positions, features.dtype), torch.empty(0), cache, None, rows)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, TransformerLayer)
            _, keys, values = layer.attention.project(layer.attention_norm(features), context)
            cache.write(number, keys, values)
        cache.commit(rows)

    def forward(self, base: Transformer, anchor: torch.Tensor, num_slots: int, cache: KVCache) -> torch.Tensor:
        """Logits [num_slots + 1, V] of the positions after ``anchor`` (the newest token, int64 [1]) and each slot.

        Row 0 is the anchor, whose hidden state the base has not computed yet; the other rows are masks. Logits are
        shifted: row i speaks of the position after its own.
        """
        first = cache.length
        masks = self.mask_embedding.to(base.dtype).expand(1, num_slots, -1)
        x = torch.cat((base.embed_tokens(anchor).unsqueeze(0), masks), dim=1)
        rows = num_slots + 1
        cache.reserve(first + rows)
        visible = with_cache(torch.ones(rows, rows, dtype=torch.bool), first).unsqueeze(0).to(x.device)
        positions = torch.arange(first, first + rows, device=x.device).unsqueeze(0)
        context = ForwardContext(self.rope(positions, x.dtype), visible, cache, None, rows)
        for layer in self.layers:
            x = layer(x, context)
        return base.logits(self.norm(x))[0]

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take over ``tensors`` (names of this module's parameters).

        Raises:
            CheckpointError: a tensor is missing, unexpected or has another shape; the message names it.
        """
        copy_tensors(dict(self.named_parameters()), tensors, "draft head")

    @torch.no_grad()
    def randomise(self, generator: torch.Generator, scale: float = 0.02) -> None:
        """Draw every matrix from a normal distribution: for tests, and to begin training from noise."""
        for name, parameter in self.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
