"""Files of a tuning: low-rank changes of a base's own weights, kept apart from it and merged when it is loaded.

A folder with ``tuning.safetensors`` (``layers.{i}.{layer}.down`` and ``.up``) and ``tuning.json`` (rank, alpha). Other
than a drafter it acts on every row: a tuned base gives other text than the plain one (training.md section 2b).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_core.checkpoints.atomic import new_folder
from diffusion_core.checkpoints.hf_config import read_json
from diffusion_core.checkpoints.safetensors_file import FLOAT_TYPES, read_header, read_small
from diffusion_core.checkpoints.store import hash_checkpoint
from diffusion_core.checkpoints.weights import Shape, check_shapes
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

TUNING_WEIGHTS_FILE = "tuning.safetensors"
TUNING_METADATA_FILE = "tuning.json"
_KIND = "merged_adapter"


@dataclass(frozen=True, kw_only=True)
class TuningMetadata:
    """A layer's weight grows by ``alpha / rank * up @ down``."""

    rank: int
    alpha: float


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A tuning as loaded."""

    metadata: TuningMetadata
    tensors: Mapping[str, torch.Tensor]

    def delta(self, layer: str) -> tuple[torch.Tensor, torch.Tensor, float]:
        """``up`` [out, rank], ``down`` [rank, in] and the scale of what is added to the weight of ``layer``."""
        scale = self.metadata.alpha / self.metadata.rank
        return self.tensors[f"{layer}.up"], self.tensors[f"{layer}.down"], scale

    def merge_pieces(self, name: str, pieces: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The rows of the tensor ``name`` with what is added to them; ``pieces`` are its rows in order, in float32."""
        import torch

        layer, start = name.removesuffix(".weight"), 0
        if layer == name or f"{layer}.up" not in self.tensors:
            yield from pieces
            return
        up, down, scale = self.delta(layer)
        for piece in pieces:
            yield torch.addmm(piece, up[start : start + len(piece)].to(piece), down.to(piece), alpha=scale)
            start += len(piece)


def tuning_shapes(config: ModelConfig, rank: int) -> dict[str, Shape]:
    """Name -> shape of every tensor of a tuning for a model of this shape."""
    from diffusion_core.model.adapter import adapted_layers

    shapes: dict[str, Shape] = {}
    for name, (num_in, num_out) in adapted_layers(config).items():
        shapes[f"{name}.down"] = (rank, num_in)
        shapes[f"{name}.up"] = (num_out, rank)
    return shapes


def save_tuning(folder: Path, metadata: TuningMetadata, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a tuning's folder atomically; an older one of that name is replaced."""
    from safetensors.torch import save_file

    with new_folder(folder) as draft:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, draft / TUNING_WEIGHTS_FILE)
        record = asdict(metadata) | {"kind": _KIND}
        (draft / TUNING_METADATA_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def hash_tuning(folder: Path) -> str:
    """A sha256 of a tuning's files.

    Raises:
        CheckpointError: a file is missing; it is named.
    """
    files = [folder / TUNING_METADATA_FILE, folder / TUNING_WEIGHTS_FILE]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{file} is missing")
    return hashlib.sha256("\n".join(hash_checkpoint(file) for file in files).encode()).hexdigest()


def load_tuning(folder: Path, config: ModelConfig) -> Tuning:
    """Read a tuning's folder and check it against the base model's shape.

    Raises:
        CheckpointError: a file, key or tensor is missing, unexpected, damaged or of another shape; it is named.
    """
    metadata = _read_metadata(folder / TUNING_METADATA_FILE)
    path = folder / TUNING_WEIGHTS_FILE
    header = read_header(path)
    for name, stored in header.items():
        if stored.dtype not in FLOAT_TYPES:
            raise CheckpointError(f"{path}: tensor {name} has type {stored.dtype}, not one of {', '.join(FLOAT_TYPES)}")
    found = {name: stored.shape for name, stored in header.items()}
    check_shapes(found, tuning_shapes(config, metadata.rank), lambda _: str(path))
    return Tuning(metadata=metadata, tensors=read_small(path))


def _read_metadata(path: Path) -> TuningMetadata:
    values = read_json(path)
    kind = values.get("kind")
    if kind != _KIND:
        raise CheckpointError(f"{path}: kind {kind!r} is unknown: {_KIND} is known")
    rank, alpha = values.get("rank"), values.get("alpha")
    if type(rank) is not int or rank < 1:
        raise CheckpointError(f"{path}: rank is {rank!r}, a whole number of at least 1 expected")
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
        raise CheckpointError(f"{path}: alpha is {alpha!r}, a number expected")
    return TuningMetadata(rank=rank, alpha=float(alpha))
