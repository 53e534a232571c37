"""Our own layout of a checkpoint: a folder that loads by memory mapping, without transformers.

::

    model.safetensors       the Transformer's tensors under its own names
    model_config.json       ModelConfig          diffusion_config.json   DiffusionConfig
    tokenizer.json          a fast tokenizer
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.overrides import TorchFunctionMode

from diffusion_core.checkpoints.atomic import new_folder
from diffusion_core.checkpoints.safetensors_file import FLOAT_TYPES, read_header
from diffusion_core.checkpoints.tokenizer_file import TOKENIZER_FILE, read_tokenizer
from diffusion_core.checkpoints.tuning import load_tuning
from diffusion_core.checkpoints.weights import check_shapes
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import (
    DIFFUSION_CONFIG_FILE,
    MODEL_CONFIG_FILE,
    DiffusionConfig,
    DrafterKind,
    ModelConfig,
    read_diffusion_config,
    read_model_config,
    write_config,
)
from diffusion_core.model.packed import can_pack, layer_packer, merge_deltas
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.transformer import Transformer

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoadedFolder:
    """What a folder in our own layout holds."""

    model: Transformer
    tokenizer: Tokenizer
    model_config: ModelConfig
    diffusion_config: DiffusionConfig


class ShapeCheck(Protocol):
    """Looks at what is about to be loaded, and raises when it must not be."""

    def __call__(self, shape: ModelConfig, contract: DiffusionConfig) -> None:
        """Called before any weight is read."""


def accept_any(shape: ModelConfig, contract: DiffusionConfig) -> None:
    """A :class:`ShapeCheck` that raises nothing."""


def is_own_layout(folder: Path) -> bool:
    """Whether the folder is in our own layout, by the configuration file in it."""
    return (folder / MODEL_CONFIG_FILE).is_file()


def load_folder(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    serve: bool = False,
    quantize: Quantization = Quantization.NONE,
    tuning: Path | None = None,
    check: ShapeCheck = accept_any,
) -> LoadedFolder:
    """Load a folder in our own layout; ``tuning`` is the folder of one that is merged into the weights.

    On the CPU and in the stored dtype the weights stay mapped: they are read when first used, and processes share them.
    With ``serve`` they are packed for the CPU's kernels where that helps; such a model can only be evaluated. With
    ``quantize`` they are packed in 8 or 4 bits, whatever was stored. ``check`` sees the shape first.

    Raises:
        CheckpointError: a file, key or tensor is missing, unexpected, damaged or of another shape; it is named.
    """
    config = read_model_config(folder / MODEL_CONFIG_FILE)
    check(config, read_diffusion_config(folder / DIFFUSION_CONFIG_FILE))
    model = build_empty(config)
    weights = folder / WEIGHTS_FILE
    _check_tensors(weights, model)
    is_quantized = quantize is not Quantization.NONE
    # To be quantised for another device, layers go there one by one: as a whole they may be too large for it.
    stage = torch.device("cpu") if is_quantized else device
    model.load_state_dict(_read_tensors(weights, model.state_dict(), dtype, stage), assign=True)
    packs = is_quantized or (serve and can_pack(device, dtype))
    if tuning is not None:
        delta = load_tuning(tuning, config).delta
        if packs:
            merge_deltas(model, delta, layer_packer(quantize, device))
        else:
            merge_deltas(model, delta)
    if packs:
        _pack_mapped(model, weights, dtype, device, quantize)
    return join_records(folder, model)


def join_records(folder: Path, model: Transformer) -> LoadedFolder:
    """A loaded model and the records that lie beside its weights.

    Raises:
        CheckpointError: a record is missing, damaged or of another model; it is named.
    """
    model.requires_grad_(False).eval()
    loaded = LoadedFolder(
        model=model,
        tokenizer=read_tokenizer(folder / TOKENIZER_FILE),
        model_config=model.config,
        diffusion_config=read_diffusion_config(folder / DIFFUSION_CONFIG_FILE),
    )
    _check_ids(folder, loaded)
    return loaded


def _check_ids(folder: Path, loaded: LoadedFolder) -> None:
    """Every id that the records name must have a row in the model; rows that no id names are padding."""
    size, contract = loaded.model_config.vocab_size, loaded.diffusion_config
    last = max(loaded.tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if last >= size:
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE} has the id {last}, the vocabulary of {folder / WEIGHTS_FILE} ends at "
            f"{size - 1}: the tokenizer is that of another model"
        )
    masks = () if contract.mask_token_id is None else (contract.mask_token_id,)
    # A gated adapter has its own embedding of the mask, behind the vocabulary.
    num_masks = size + (contract.drafter is DrafterKind.GATED_ADAPTER)
    named = (
        ("mask_token_id", masks, num_masks),
        ("stop_token_ids", contract.stop_token_ids, size),
        ("banned_token_ids", contract.banned_token_ids, size),
    )
    for key, ids, end in named:
        if wrong := [found for found in ids if type(found) is not int or not 0 <= found < end]:
            raise CheckpointError(
                f"{folder / DIFFUSION_CONFIG_FILE}: {key} has {wrong[0]!r}, the model's ids are 0 to {end - 1}"
            )


class _SkipInitialisation(TorchFunctionMode):
    """Leaves parameters as they are made: random numbers on the meta device cost torch a second of imports."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_", "kaiming_uniform_"):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def build_empty(config: ModelConfig) -> Transformer:
    """A Transformer of that shape on the meta device: names and shapes without memory."""
    with torch.device("meta"), _SkipInitialisation():
        return Transformer(config)


def _check_tensors(path: Path, model: Transformer) -> None:
    header = read_header(path)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_shapes({name: stored.shape for name, stored in header.items()}, wanted, lambda _: str(path))
    for name, stored in header.items():
        if stored.dtype not in FLOAT_TYPES:
            raise CheckpointError(f"{path}: tensor {name} has type {stored.dtype}, not one of {', '.join(FLOAT_TYPES)}")


def _read_tensors(
    path: Path, names: Iterable[str], dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name).to(dtype) for name in names}  # nothing happens where the dtype is right
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _pack_mapped(
    model: Transformer, path: Path, dtype: torch.dtype, device: torch.device, quantize: Quantization
) -> None:
    """Pack a model whose tensors are a mapping of the file at ``path``.

    What stays plain gets a mapping of its own: with the last reference to the first one its pages leave our memory.
    """
    model.pack(quantize=quantize, device=device)
    left = _read_tensors(path, model.state_dict(), dtype, device)
    model.load_state_dict(left, assign=True)


def save_folder(folder: Path, model: Transformer, tokenizer: Tokenizer, diffusion_config: DiffusionConfig) -> None:
    """Write a folder in our own layout atomically, in the model's dtype; an older one of that name is replaced."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with new_folder(folder) as draft:
        save_file(tensors, draft / WEIGHTS_FILE, metadata={"format": "pt"})
        write_records(draft, model.config, tokenizer, diffusion_config)


def write_records(folder: Path, config: ModelConfig, tokenizer: Tokenizer, diffusion_config: DiffusionConfig) -> None:
    """Write everything of a folder in our own layout but the weights."""
    write_config(config, folder / MODEL_CONFIG_FILE)
    write_config(diffusion_config, folder / DIFFUSION_CONFIG_FILE)
    tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)
