"""The output head laid out for a CPU, in pieces of the vocabulary.

Scores of a decoding round over a whole vocabulary are tens of megabytes. Memory of that size goes back to the system
after every product and returns page by page, which takes as long as the product does. Where only the best token of each
row is wanted, the scores of one piece at a time are enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.model.native_matrix import NativeMatrix
from diffusion_core.model.packed import PackedMatrix, ServingMatrix, can_pack, serving_matrix
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import QuantizedWeight, quantize_weight, why_not_eight_bits

# Outputs of a piece: with 96 rows of a round its scores, and twice as many in 8 bits, stay in memory that is kept.
PIECE = 32768


class OutputHead:
    """A head [V, D] as matrices of up to :data:`PIECE` tokens each, in order."""

    def __init__(self, pieces: Sequence[ServingMatrix]) -> None:
        self._pieces = tuple(pieces)
        self.num_bytes = sum(piece.num_bytes for piece in pieces)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 [..., V] of hidden states [..., D]."""
        parts = [piece.scores(x) for piece in self._pieces]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def best(self, x: torch.Tensor) -> torch.Tensor:
        """The token with the highest score of each row [R, D], the first of equals: int64 [R]."""
        first = self._pieces[0]
        if isinstance(first, NativeMatrix) and len(self._pieces) == 1:
            return first.best(x)
        values, tokens = [], []
        for number, piece in enumerate(self._pieces):
            value, index = piece.scores(x).max(-1)
            values.append(value)
            tokens.append(index + number * PIECE)
        if len(values) == 1:
            return tokens[0]
        highest = torch.stack(values).max(0).indices
        return torch.stack(tokens).gather(0, highest.unsqueeze(0)).squeeze(0)


def quantized_head(weight: QuantizedWeight) -> OutputHead:
    """A head whose weights have 8 bits."""
    if weight.values.device.type == "cpu" and not why_no_kernels():
        return OutputHead([NativeMatrix(weight)])  # it needs no memory for scores where the best token is wanted
    pieces = zip(torch.split(weight.values, PIECE), torch.split(weight.scales, PIECE), strict=True)
    return OutputHead([serving_matrix(QuantizedWeight(values, scales)) for values, scales in pieces])


def pack_head(weight: torch.Tensor, quantization: Quantization) -> OutputHead | None:
    """The output head beside layers of that form; None: it stays as it is.

    Where the CPU multiplies 8 bits exactly they are enough for it; 4 would not be.
    """
    if quantization is not Quantization.NONE and weight.device.type == "cpu" and not why_not_eight_bits("cpu"):
        return quantized_head(quantize_weight(weight))
    if can_pack(weight.device, weight.dtype):
        return OutputHead([PackedMatrix(part) for part in torch.split(weight, PIECE)])
    return None
