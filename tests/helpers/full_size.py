"""Shapes of full-size models, as their ``config.json`` publish them, and weights of these sizes without memory."""

from __future__ import annotations

from functools import cache

import torch

from diffusion_core.model.config import ModelConfig
from diffusion_core.model.int4 import quantize_int4

FULL_SIZE = {
    "stable-diffcoder-8b": ModelConfig(
        vocab_size=155_136, hidden_size=4096, intermediate_size=14_336, num_layers=32, num_heads=32, num_kv_heads=8,
        head_dim=128, rope_theta=500_000.0, max_position_embeddings=8192,
    ),
    "llada-8b": ModelConfig(
        vocab_size=126_464, hidden_size=4096, intermediate_size=12_288, num_layers=32, num_heads=32, num_kv_heads=32,
        head_dim=128, rope_theta=500_000.0, rms_norm_eps=1e-5, max_position_embeddings=4096,
    ),
    "qwen2.5-7b": ModelConfig(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_layers=28, num_heads=28, num_kv_heads=4,
        head_dim=128, rope_theta=1e6, qkv_bias=True, max_position_embeddings=32_768,
    ),
    "qwen2.5-1.5b": ModelConfig(
        vocab_size=151_936, hidden_size=1536, intermediate_size=8960, num_layers=28, num_heads=12, num_kv_heads=2,
        head_dim=128, rope_theta=1e6, qkv_bias=True, tie_word_embeddings=True, max_position_embeddings=32_768,
    ),
    "qwen2.5-0.5b": ModelConfig(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14, num_kv_heads=2,
        head_dim=64, rope_theta=1e6, qkv_bias=True, tie_word_embeddings=True, max_position_embeddings=32_768,
    ),
}  # fmt: skip


@cache
def int4_bytes(shape: torch.Size) -> int:
    """Size of a weight of that shape in 4 bits: quantised on the meta device, where only shapes are computed."""
    return quantize_int4(torch.empty(shape, device="meta")).num_bytes
