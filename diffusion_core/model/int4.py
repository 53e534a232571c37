"""Weights in 4 bits: what a large model needs to fit, a quarter of bfloat16.

A weight is a number from 0 to 15; :data:`GROUP_SIZE` neighbours along the input share a scale and an offset in
bfloat16: ``(number - 8) * scale + offset``. Activations keep their precision. The output head and the embedding are
not held like this: they are a small part of a large model, and every token's score hangs on them.

How such a weight is multiplied is the affair of a device (``int4_cpu.py``, ``int4_cuda.py``, ``tiled.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion_core.errors import CheckpointError
from diffusion_core.model.quantization import GROUP_SIZE

_LEVELS = 15
_MIDDLE = 8
_CACHED_ELEMENTS = 128 * 1024
_TINY = 1e-8  # the scale of a group whose weights are all equal
# Parts of the span from the least to the greatest weight that are tried: what is cut off costs less than it saves.
_SPANS = (1.0, 0.95, 0.9, 0.85, 0.8)


@dataclass(frozen=True)
class Int4Weight:
    """``values`` uint8 [out, in / 2], the even input in the high half of a byte; ``groups`` [out, in / G, 2].

    ``groups`` holds scale and offset in bfloat16.
    """

    values: torch.Tensor
    groups: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs of the weight that this stands for."""
        return self.values.shape[0], 2 * self.values.shape[1]

    @property
    def num_bytes(self) -> int:
        """Size of numbers, scales and offsets."""
        return self.values.numel() + 2 * self.groups.numel()


def check_inputs(num_in: int, name: str = "a weight") -> None:
    """Raise :class:`CheckpointError` unless ``num_in`` inputs can be divided into groups."""
    if num_in % GROUP_SIZE:
        raise CheckpointError(f"{name} has {num_in} inputs, no multiple of {GROUP_SIZE}: int4 cannot hold it, use int8")


def quantize_int4(weight: torch.Tensor) -> Int4Weight:
    """The 4-bit form of ``weight`` [out, in] with the least squared error among a few spans; groups are independent.

    Raises:
        CheckpointError: the number of inputs is no multiple of the group size.
    """
    check_inputs(weight.shape[1])
    # A part that stays in a core's cache: this takes many passes. A GPU wants all at once.
    step = max(1, _CACHED_ELEMENTS // weight.shape[1]) if weight.device.type == "cpu" else len(weight)
    parts = [_quantize_rows(rows) for rows in torch.split(weight, max(1, step))]
    if len(parts) == 1:
        return parts[0]
    return Int4Weight(torch.cat([part.values for part in parts]), torch.cat([part.groups for part in parts]))


def _quantize_rows(weight: torch.Tensor) -> Int4Weight:
    num_out, num_in = weight.shape
    grouped = weight.detach().float().view(num_out, -1, GROUP_SIZE)
    least, greatest = grouped.amin(-1), grouped.amax(-1)
    best = torch.full_like(least, torch.inf)
    scale, offset = torch.empty_like(least), torch.empty_like(least)
    for span in _SPANS:
        # What is stored is rounded first, so that the numbers are the best ones for what is stored.
        tried = ((greatest - least) * (span / _LEVELS)).clamp_(min=_TINY).bfloat16().float()
        middle = (greatest + least) / 2
        shifted = (middle + tried * (_MIDDLE - _LEVELS / 2)).bfloat16().float()
        numbers = _round(grouped, tried, shifted)
        error = (_widen(numbers, tried, shifted) - grouped).square_().sum(-1)
        is_better = error < best
        best = torch.where(is_better, error, best)
        scale, offset = torch.where(is_better, tried, scale), torch.where(is_better, shifted, offset)
    numbers = _round(grouped, scale, offset).to(torch.uint8).view(num_out, num_in)
    values = (numbers[:, ::2] << 4) | numbers[:, 1::2]
    return Int4Weight(values, torch.stack((scale, offset), -1).bfloat16())


def _round(grouped: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    shifted = (grouped - offset.unsqueeze(-1)).div_(scale.unsqueeze(-1))
    return shifted.round_().add_(_MIDDLE).clamp_(0, _LEVELS)


def _widen(numbers: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    return (numbers - _MIDDLE).mul_(scale.unsqueeze(-1)).add_(offset.unsqueeze(-1))


def unpack_numbers(values: torch.Tensor) -> torch.Tensor:
    """The numbers uint8 [out, in] of ``values`` [out, in / 2]."""
    return torch.stack((values >> 4, values & 15), -1).flatten(1)


def widen_numbers(numbers: torch.Tensor, groups: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight [out, in] that ``numbers`` [out, in] and ``groups`` [out, in / G, 2] stand for.

    It is computed in float32 at least and rounded once.
    """
    wide = torch.promote_types(dtype, torch.float32)
    scale, offset = groups.to(wide).unbind(-1)
    weight = _widen(numbers.view(*groups.shape[:2], -1).to(wide), scale, offset)
    return weight.flatten(1).to(dtype)


def widen(weight: Int4Weight, dtype: torch.dtype) -> torch.Tensor:
    """The plain weight [out, in] that a 4-bit one stands for."""
    return widen_numbers(unpack_numbers(weight.values), weight.groups, dtype)
