"""Rotary position embeddings: frequencies from the configuration, rotation of queries and keys by absolute position.

Shape letters of this package: B sequences, T rows of this forward, S keys (cache and rows), H query heads, K key and
value heads, Dh head size, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math

import torch

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig

# Positions of the tables beyond the model's own: a draft and its slots may reach behind the last position that is kept.
# At least the rows of a round (96) and the largest block of slots that can be asked for (256).
SPARE_POSITIONS = 256


def inverse_frequencies(config: ModelConfig) -> torch.Tensor:
    """Angular frequency of each pair of channels, float32 [Dh / 2], with the configured scaling applied.

    Raises:
        CheckpointError: the checkpoint uses a scaling that is not supported.
    """
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponent)
    scaling = config.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    match kind:
        case "default":
            return frequencies
        case "linear":
            return frequencies / float(scaling["factor"])
        case "llama3":
            return _scale_llama3(frequencies, scaling)
        case _:
            raise CheckpointError(f"rope_scaling type {kind!r} is not supported: default, linear and llama3 are")


def _scale_llama3(frequencies: torch.Tensor, scaling: dict[str, float]) -> torch.Tensor:
    """Llama 3.1's scaling: long wavelengths are stretched by ``factor``, short ones kept, a ramp between."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling["original_max_position_embeddings"]
    wavelengths = 2 * math.pi / frequencies
    stretched = torch.where(wavelengths > original / low, frequencies / factor, frequencies)
    ramp = (original / wavelengths - low) / (high - low)
    blended = (1 - ramp) * stretched / factor + ramp * stretched
    is_between = (wavelengths >= original / high) & (wavelengths <= original / low)
    return torch.where(is_between, blended, stretched)


class RotaryEmbedding(torch.nn.Module):
    """Cosine and sine tables by position, made on demand, in the dtype of the model.

    They go :data:`SPARE_POSITIONS` beyond the model's positions. What a position has does not depend on their length.
    """

    inv_freq: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._config = config
        self._cos = torch.empty(0)
        self._sin = torch.empty(0)

    def forward(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Tables for ``positions`` [B, T]: cosine and sine, each [B, T, 1, Dh], in ``dtype``."""
        needed = self._config.max_position_embeddings + SPARE_POSITIONS
        if self._cos.shape[0] != needed or self._cos.device != positions.device or self._cos.dtype != dtype:
            angles = torch.outer(torch.arange(needed).float(), inverse_frequencies(self._config))
            angles = torch.cat((angles, angles), dim=-1).to(positions.device)
            self._cos, self._sin = angles.cos().to(dtype), angles.sin().to(dtype)
        return self._cos[positions].unsqueeze(2), self._sin[positions].unsqueeze(2)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate ``x`` [B, T, heads, Dh] by the tables of its rows."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
