"""In how many bits the weights of linear layers are held: a name for each form. No torch."""

from __future__ import annotations

from enum import StrEnum


class Quantization(StrEnum):
    """``NONE``: the dtype of the activations. ``INT8``: a scale per output. ``INT4``: a scale per group of inputs."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"


# Weights of int4 that share a scale and an offset, neighbours along the input.
GROUP_SIZE = 32
# Bytes of a group's scale and offset, in bfloat16 each.
GROUP_BYTES = 4
