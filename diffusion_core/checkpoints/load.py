"""Load a checkpoint of any supported kind into the one Transformer, and save one: ``load_checkpoint``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from diffusion_core.checkpoints.adapter import Drafter, GatedAdapterMetadata, load_drafter
from diffusion_core.checkpoints.convert import ensure_converted
from diffusion_core.checkpoints.families.recognise import AUTO
from diffusion_core.checkpoints.layout import (
    LoadedFolder,
    ShapeCheck,
    accept_any,
    is_own_layout,
    join_records,
    load_folder,
    save_folder,
)
from diffusion_core.checkpoints.quantized_file import WEIGHTS_FILES, load_quantized
from diffusion_core.checkpoints.registry import registry
from diffusion_core.checkpoints.sources import Progress, ignore_progress
from diffusion_core.checkpoints.store import RECEIPT_FILE, locate, read_receipt
from diffusion_core.checkpoints.tokenizer_file import find_stop_ids
from diffusion_core.checkpoints.tuning import load_tuning
from diffusion_core.errors import CheckpointError, ConfigError
from diffusion_core.model.config import (
    DIFFUSION_CONFIG_FILE,
    MODEL_CONFIG_FILE,
    DiffusionConfig,
    DrafterKind,
    ModelConfig,
    read_diffusion_config,
    read_model_config,
)
from diffusion_core.model.packed import why_not_served
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.transformer import Transformer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint. ``adapter`` holds the drafter's tensors when one was given."""

    name: str
    model: Transformer
    tokenizer: Tokenizer
    model_config: ModelConfig
    diffusion_config: DiffusionConfig
    adapter: Drafter | None = None


def load_checkpoint(
    name_or_path: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    drafter: Path | None = None,
    tuning: Path | None = None,
    family: str = AUTO,
    serve: bool = False,
    quantize: Quantization = Quantization.NONE,
    progress: Progress = ignore_progress,
    check: ShapeCheck = accept_any,
) -> Checkpoint:
    """Load a checkpoint by registry name, ``.gguf`` file, Hugging Face folder or folder in our own layout.

    The first load of a foreign format writes a converted copy into the cache; later ones map that copy.
    ``tuning`` is the folder of low-rank changes that are merged into the weights (tuning.py). ``family`` names the
    family of a Hugging Face folder whose files do not show it (families/); ``auto``: what they or its pull say.
    With ``serve`` the weights are laid out for decoding on this device: faster, and neither to be trained nor saved.
    With ``quantize`` (to serve) they have 8 or 4 bits and ``dtype`` is that of the activations; a converted copy in
    that form is kept, with the tuning merged into it.
    ``check`` is given the shape and the contract before any weight is read, and raises what it likes.

    Raises:
        ConfigError: ``quantize``, and this machine cannot multiply such weights.
        CheckpointError: unknown, not downloaded, damaged, or of an unsupported kind; the message says what and where.
    """
    if reason := why_not_served(quantize, device.type):
        raise ConfigError(f"{quantize} weights cannot be used here: {reason}; choose another dtype, or auto")
    path = locate(name_or_path)
    expected = None
    if path.is_dir() and (path / RECEIPT_FILE).exists():
        receipt = read_receipt(path)
        path, expected = path / receipt.file, receipt.sha256
        family = receipt.family if family == AUTO else family
    if path.is_dir() and is_own_layout(path):
        loaded = load_folder(
            path, dtype=dtype, device=device, serve=serve, quantize=quantize, tuning=tuning, check=check
        )
    else:
        loaded = _load_converted(
            path,
            expected_sha256=expected,
            family=family,
            dtype=dtype,
            device=device,
            serve=serve,
            quantize=quantize,
            tuning=tuning,
            progress=progress,
            check=check,
        )
    diffusion_config = loaded.diffusion_config
    entry = registry().get(name_or_path)
    if entry is not None and entry.diffusion is not None:
        diffusion_config = _with_ids(entry.diffusion, loaded)
    adapter = load_drafter(drafter, loaded.model_config) if drafter is not None else None
    if adapter is not None:
        diffusion_config = _with_drafter(diffusion_config, adapter, loaded.model_config)
    return Checkpoint(
        name=name_or_path,
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        model_config=loaded.model_config,
        diffusion_config=diffusion_config,
        adapter=adapter,
    )


def save_checkpoint(
    folder: str | Path, model: Transformer, tokenizer: Tokenizer, diffusion_config: DiffusionConfig
) -> None:
    """Write a checkpoint in our own layout, whole or not at all; :func:`load_checkpoint` gives it back exactly."""
    save_folder(Path(folder), model, tokenizer, diffusion_config)


def _load_converted(
    path: Path,
    *,
    expected_sha256: str | None,
    family: str,
    dtype: torch.dtype,
    device: torch.device,
    serve: bool,
    quantize: Quantization,
    tuning: Path | None,
    progress: Progress,
    check: ShapeCheck,
) -> LoadedFolder:
    is_quantized = quantize is not Quantization.NONE

    def convert(*, again: bool = False) -> Path:
        return ensure_converted(
            path,
            dtype,
            progress,
            quantize=quantize,
            family=family,
            tuning=tuning if is_quantized else None,
            expected_sha256=expected_sha256,
            again=again,
            check=check,
        )

    copy = convert()

    def load() -> LoadedFolder:
        if is_quantized:
            config = read_model_config(copy / MODEL_CONFIG_FILE)
            check(config, read_diffusion_config(copy / DIFFUSION_CONFIG_FILE))
            return join_records(copy, load_quantized(copy / WEIGHTS_FILES[quantize], config, dtype, device, quantize))
        return load_folder(copy, dtype=dtype, device=device, serve=serve, tuning=tuning, check=check)

    try:
        return load()
    except CheckpointError as error:
        if tuning is not None:
            load_tuning(tuning, read_model_config(copy / MODEL_CONFIG_FILE))  # the fault may be the tuning's own
        # The copy is only a cache: a damaged one is made anew.
        logger.warning("the converted copy is damaged and is made anew: %s", error)
        convert(again=True)
        return load()


def _with_ids(contract: DiffusionConfig, loaded: LoadedFolder) -> DiffusionConfig:
    """The registry's configuration with the token ids of the tokenizer and of the converted copy."""
    found = loaded.diffusion_config
    stops = find_stop_ids(loaded.tokenizer, contract.prompt_format, found.stop_token_ids)
    return replace(contract, stop_token_ids=stops, banned_token_ids=found.banned_token_ids)


def _with_drafter(config: DiffusionConfig, drafter: Drafter, model_config: ModelConfig) -> DiffusionConfig:
    """The configuration of base and drafter together; what the drafter brings wins, ids it leaves open are the base's.

    A gated adapter without a mask id has its own mask embedding: its slots carry ``vocab_size``, an id of no token.
    """
    own = drafter.diffusion_config or config
    mask = config.mask_token_id
    if isinstance(drafter.metadata, GatedAdapterMetadata):
        found = drafter.metadata.mask_token_id
        mask = model_config.vocab_size if found is None else found
    return replace(
        own,
        drafter=DrafterKind(drafter.metadata.kind),
        mask_token_id=mask,
        stop_token_ids=own.stop_token_ids or config.stop_token_ids,
        banned_token_ids=own.banned_token_ids or config.banned_token_ids,
    )
