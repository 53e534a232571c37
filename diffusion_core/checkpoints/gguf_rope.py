"""The rotary scaling of a GGUF file in the terms of :class:`ModelConfig`.

Llama 3 models store no scaling parameters in GGUF: the writer evaluates them and stores one divisor for each
frequency (tensor ``rope_freqs.weight``). The parameters follow from the divisors again, and are checked against them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffusion_core.checkpoints.gguf_file import GGUFFile
from diffusion_core.errors import CheckpointError

ROPE_FACTORS = "rope_freqs.weight"


def read_rope_scaling(file: GGUFFile, arch: str, head_dim: int, theta: float) -> dict[str, Any] | None:
    """None, a ``linear`` or a ``llama3`` scaling.

    Raises:
        CheckpointError: the file asks for another kind of scaling.
    """
    kind = file.get(f"{arch}.rope.scaling.type", str, "none")
    if ROPE_FACTORS in file.tensors:
        if kind != "none":
            raise CheckpointError(f"{file.path}: tensor {ROPE_FACTORS} beside rope scaling {kind!r} is not supported")
        return _llama3_scaling(file, head_dim, theta)
    match kind:
        case "none":
            return None
        case "linear":
            return {"rope_type": "linear", "factor": file.require(f"{arch}.rope.scaling.factor", float)}
        case _:
            raise CheckpointError(f"{file.path}: rope scaling {kind!r} is not supported: none, linear and llama3 are")


def _llama3_scaling(file: GGUFFile, head_dim: int, theta: float) -> dict[str, Any] | None:
    """The llama3 parameters whose divisors are those of the file.

    With x = 1 / wavelength, the divisor is 1 where x is large, ``factor`` where x is small, and between the two
    1 / divisor is linear in x: from 1 / factor at x = low / original to 1 at x = high / original. Only these two
    crossings matter, so ``low_freq_factor`` is 1 and the rest follows from a line through the points in between.
    """
    tensor = file.tensors[ROPE_FACTORS]
    if tensor.shape != (head_dim // 2,) or tensor.type.name != "F32":
        raise CheckpointError(
            f"{file.path}: tensor {ROPE_FACTORS} is {tensor.type.name} {list(tensor.shape)}, "
            f"F32 [{head_dim // 2}] expected"
        )
    divisors = np.fromfile(file.path, dtype="<f4", count=head_dim // 2, offset=tensor.offset).astype(np.float64)
    factor = float(divisors.max())
    if factor == 1.0 and float(divisors.min()) == 1.0:
        return None
    x = theta ** (-np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)
    is_between = (divisors > 1.0 + 1e-6) & (divisors < factor * (1 - 1e-6))
    if int(is_between.sum()) < 2 or float(divisors.min()) < 1.0:
        raise CheckpointError(f"{file.path}: tensor {ROPE_FACTORS} holds no scaling of a known kind (llama3)")
    ramp = (1 / divisors[is_between] - 1 / factor) / (1 - 1 / factor)
    slope, intercept = np.polyfit(x[is_between], ramp, 1)
    start, end = -intercept / slope, (1 - intercept) / slope  # x where the ramp is 0 and where it is 1
    expected = 1 / (1 / factor + (1 - 1 / factor) * np.clip(slope * x + intercept, 0.0, 1.0))
    if not np.allclose(expected, divisors, rtol=1e-3) or not 0 < start < end:
        raise CheckpointError(f"{file.path}: tensor {ROPE_FACTORS} holds no scaling of a known kind (llama3)")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": float(end / start),
        "original_max_position_embeddings": float(1 / start),
    }
