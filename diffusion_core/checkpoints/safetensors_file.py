"""Safetensors files: a header check that names the damaged tensor, and a writer that streams.

Reading of values is left to the ``safetensors`` library. Its writer wants all tensors in memory at once; ours takes
them piece by piece, so that a conversion needs little more memory than one piece.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_core.checkpoints.weights import Shape
from diffusion_core.errors import CheckpointError

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# Names of torch's dtypes for the types that a quantised copy has; the others are not written.
ITEM_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}
FLOAT_TYPES = ("F32", "F16", "BF16")
_MAX_HEADER_BYTES = 100 * 1024 * 1024
_ALIGNMENT = 4096


@dataclass(frozen=True)
class StoredTensor:
    """Type, shape and position of a tensor within a file."""

    dtype: str
    shape: Shape


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Name -> tensor of a safetensors file, after a check that all of them lie within it.

    Raises:
        CheckpointError: missing, damaged or truncated; the message names the file and the tensor.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MAX_HEADER_BYTES, size - 8):
                raise CheckpointError(f"{path} is damaged or truncated: its header of {length} bytes does not fit")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: _stored(path, name, values, size - 8 - length) for name, values in header.items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, struct.error, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: its header cannot be read ({type(error).__name__})") from None


def read_small(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file that is small enough to be held and looked through: a drafter's, a tuning's.

    Raises:
        CheckpointError: it cannot be read, or a value is not finite; file and tensor are named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path}: tensor {name} has values that are not finite")
    return tensors


def _stored(path: Path, name: str, values: Any, data_bytes: int) -> StoredTensor:
    try:
        start, end = values["data_offsets"]
        stored = StoredTensor(values["dtype"], tuple(int(size) for size in values["shape"]))
        num_bytes = ITEM_BYTES.get(stored.dtype)
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} is damaged: the header entry of tensor {name} is none") from None
    for size in stored.shape:
        num_bytes = None if num_bytes is None else num_bytes * size
    if num_bytes is None:
        raise CheckpointError(f"{path}: tensor {name} has type {stored.dtype}, supported are {', '.join(FLOAT_TYPES)}")
    if not 0 <= start <= end or end - start != num_bytes:
        raise CheckpointError(f"{path} is damaged: tensor {name} has {end - start} bytes, {num_bytes} expected")
    if end > data_bytes:
        raise CheckpointError(
            f"{path} is truncated: tensor {name} ends at byte {end} of the data, only {data_bytes} are there"
        )
    return stored


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written: its dtype and shape."""

    dtype: torch.dtype
    shape: Shape

    @property
    def num_bytes(self) -> int:
        """Size of its values."""
        return prod(self.shape) * self.dtype.itemsize


def write_streaming(
    path: Path, tensors: Iterable[tuple[str, Iterable[torch.Tensor]]], layout: Mapping[str, PlannedTensor]
) -> None:
    """Write a safetensors file whose tensors come in pieces, in the order of ``layout``.

    The data begins at a multiple of 4096 bytes: mapped tensors are then aligned for vector instructions, as long as
    every size is a multiple of 64.

    Raises:
        CheckpointError: the pieces of a tensor do not make its shape.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, planned in layout.items():
        end = offset + planned.num_bytes
        entry = {"dtype": _type_name(planned.dtype), "shape": list(planned.shape), "data_offsets": [offset, end]}
        header[name] = entry
        offset = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-(8 + len(encoded)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for (name, pieces), (expected, planned) in zip(tensors, layout.items(), strict=True):
            written = 0
            for piece in pieces:
                flat = piece.to(planned.dtype).contiguous().reshape(-1).view(torch.uint8)
                written += file.write(flat.numpy().data)
            if name != expected or written != planned.num_bytes:
                raise CheckpointError(f"tensor {name}: {written} bytes for the shape {list(planned.shape)}")


def _type_name(dtype: torch.dtype) -> str:
    for name, found in ITEM_TYPES.items():
        if str(dtype) == f"torch.{found}":
            return name
    raise CheckpointError(f"dtype {dtype} is not supported: float32, bfloat16 and float16 are")
