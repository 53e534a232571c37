"""Files of a drafter: a gated adapter or a draft head, kept apart from the base checkpoint they belong to.

A folder with ``drafter.safetensors`` (the tensors) and ``drafter.json`` (what they are). An optional
``diffusion_config.json`` beside them replaces that of the base: the block size it was trained with, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_core.checkpoints.atomic import new_folder
from diffusion_core.checkpoints.hf_config import read_json
from diffusion_core.checkpoints.safetensors_file import FLOAT_TYPES, read_header, read_small
from diffusion_core.checkpoints.weights import Shape, check_shapes
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import (
    DIFFUSION_CONFIG_FILE,
    TOKEN_IDS,
    DiffusionConfig,
    DrafterKind,
    ModelConfig,
    read_diffusion_config,
    write_config,
)

if TYPE_CHECKING:
    import torch

DRAFTER_WEIGHTS_FILE = "drafter.safetensors"
DRAFTER_METADATA_FILE = "drafter.json"


@dataclass(frozen=True, kw_only=True)
class GatedAdapterMetadata:
    """Low-rank deltas for slot rows: ``alpha / rank * up(down(x))``; no mask id means the adapter's own embedding."""

    rank: int
    alpha: float
    mask_token_id: int | None = None
    kind: str = DrafterKind.GATED_ADAPTER.value


@dataclass(frozen=True, kw_only=True)
class DraftHeadMetadata:
    """Extra layers over the base's hidden states at ``tap_layers``. Tensor names are checked by the head itself.

    It drafts ``vocabulary_size`` tokens of the base's vocabulary, in ``num_steps`` denoising steps.
    """

    num_layers: int
    tap_layers: tuple[int, ...]
    vocabulary_size: int
    num_steps: int = 1
    kind: str = DrafterKind.DRAFT_HEAD.value


DrafterMetadata = GatedAdapterMetadata | DraftHeadMetadata


@dataclass(frozen=True, kw_only=True)
class Drafter:
    """A drafter as loaded: what it is, its tensors, and the diffusion configuration it brings (if any)."""

    metadata: DrafterMetadata
    tensors: dict[str, torch.Tensor]
    diffusion_config: DiffusionConfig | None = None


def adapter_shapes(config: ModelConfig, rank: int) -> dict[str, Shape]:
    """Name -> shape of every tensor of a gated adapter for a model of this shape."""
    from diffusion_core.model.adapter import adapted_layers

    shapes: dict[str, Shape] = {"mask_embedding": (config.hidden_size,)}
    for name, (num_in, num_out) in adapted_layers(config).items():
        shapes[f"{name}.down"] = (rank, num_in)
        shapes[f"{name}.up"] = (num_out, rank)
    return shapes


def save_drafter(
    folder: Path,
    metadata: DrafterMetadata,
    tensors: Mapping[str, torch.Tensor],
    diffusion_config: DiffusionConfig | None = None,
) -> None:
    """Write a drafter's folder atomically; an older one of that name is replaced."""
    from safetensors.torch import save_file

    with new_folder(folder) as draft:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, draft / DRAFTER_WEIGHTS_FILE)
        (draft / DRAFTER_METADATA_FILE).write_text(json.dumps(asdict(metadata), indent=2) + "\n", encoding="utf-8")
        if diffusion_config is not None:
            write_config(diffusion_config, draft / DIFFUSION_CONFIG_FILE)


def load_drafter(folder: Path, config: ModelConfig) -> Drafter:
    """Read a drafter's folder and check it against the base model's shape.

    Raises:
        CheckpointError: a file, key or tensor is missing, unexpected, damaged or of another shape; it is named.
    """
    metadata = _read_metadata(folder / DRAFTER_METADATA_FILE, config)
    path = folder / DRAFTER_WEIGHTS_FILE
    header = read_header(path)
    for name, stored in header.items():
        if name == TOKEN_IDS:
            if stored.dtype not in ("I32", "I64"):
                raise CheckpointError(f"{path}: tensor {name} has type {stored.dtype}, not one of I32, I64")
        elif stored.dtype not in FLOAT_TYPES:
            raise CheckpointError(f"{path}: tensor {name} has type {stored.dtype}, not one of {', '.join(FLOAT_TYPES)}")
    if isinstance(metadata, GatedAdapterMetadata):
        found = {name: stored.shape for name, stored in header.items() if name != TOKEN_IDS}
        check_shapes(found, adapter_shapes(config, metadata.rank), lambda _: str(path))
    tensors = read_small(path)
    own = folder / DIFFUSION_CONFIG_FILE
    diffusion_config = read_diffusion_config(own) if own.exists() else None
    return Drafter(metadata=metadata, tensors=tensors, diffusion_config=diffusion_config)


def _read_metadata(path: Path, config: ModelConfig) -> DrafterMetadata:
    values = read_json(path)
    kind = values.pop("kind", None)
    if kind == DrafterKind.GATED_ADAPTER:
        _check_keys(path, values, {"rank": int, "alpha": (int, float)}, {"mask_token_id": (int, type(None))})
        mask = values.get("mask_token_id")
        if values["rank"] < 1:
            raise CheckpointError(f"{path}: rank is {values['rank']}, at least 1")
        if mask is not None and not 0 <= mask < config.vocab_size:
            raise CheckpointError(f"{path}: mask_token_id {mask} is outside the vocabulary of {config.vocab_size}")
        return GatedAdapterMetadata(rank=values["rank"], alpha=float(values["alpha"]), mask_token_id=mask)
    if kind == DrafterKind.DRAFT_HEAD:
        _check_keys(path, values, {"num_layers": int, "tap_layers": list, "vocabulary_size": int}, {"num_steps": int})
        taps = values["tap_layers"]
        if not taps or not all(type(tap) is int and 0 <= tap <= config.num_layers for tap in taps):
            raise CheckpointError(f"{path}: tap_layers is {taps!r}, numbers from 0 to {config.num_layers} expected")
        return DraftHeadMetadata(**(values | {"tap_layers": tuple(taps)}))
    raise CheckpointError(f"{path}: kind {kind!r} is unknown: gated_adapter and draft_head are known")


def _check_keys(path: Path, values: dict[str, Any], required: dict[str, Any], optional: dict[str, Any]) -> None:
    for key, kind in {**required, **optional}.items():
        if key not in values:
            if key in required:
                raise CheckpointError(f"{path}: key {key} is missing")
        elif not isinstance(values[key], kind) or isinstance(values[key], bool):
            raise CheckpointError(f"{path}: {key} is {values[key]!r}, another type expected")
    if unknown := sorted(set(values) - set(required) - set(optional)):
        raise CheckpointError(f"{path}: key {unknown[0]} is unknown: known are {', '.join([*required, *optional])}")
