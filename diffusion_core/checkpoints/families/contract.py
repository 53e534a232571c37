"""The contract by which a checkpoint of a family denoises, with the numbers that its own files give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_core.checkpoints.families.family import Family
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import DiffusionConfig, DrafterKind


def read_contract(
    family: Family, path: Path, config: Mapping[str, Any], vocabulary: Mapping[str, int]
) -> DiffusionConfig | None:
    """The DiffusionConfig of a folder by its ``config.json`` at ``path`` and the tokens of its tokenizer.

    None for an autoregressive family whose prompt format the vocabulary decides. End-of-text ids are not in it yet.

    Raises:
        CheckpointError: the mask token is not in the tokenizer or has another id in ``config.json``, or the block size
            is none.
    """
    if not family.is_diffusion:
        if not family.prompt_format:
            return None
        return DiffusionConfig(prompt_format=family.prompt_format, fim_layout=family.fim_layout)
    mask = _mask_id(family, path, config, vocabulary)
    return DiffusionConfig(
        prompt_format=family.prompt_format,
        fim_layout=family.fim_layout,
        alignment=family.alignment,
        attention=family.attention,
        drafter=DrafterKind.MODEL,
        mask_token_id=mask,
        block_size=_block_size(family, path, config),
        sub_block_size=family.sub_block_size,
        certainty=family.certainty,
        commit=family.commit,
    )


def _mask_id(family: Family, path: Path, config: Mapping[str, Any], vocabulary: Mapping[str, int]) -> int:
    names = [name for name in (family.mask_token, *family.mask_aliases) if name in vocabulary]
    if not names:
        raise CheckpointError(
            f"{path.parent / 'tokenizer.json'}: the mask token {family.mask_token} of family {family.name} is missing"
        )
    found = vocabulary[names[0]]
    stored = config.get(family.mask_key) if family.mask_key else None
    if stored is not None and stored != found:
        raise CheckpointError(
            f"{path}: {family.mask_key} is {stored!r}, but the tokenizer gives {names[0]} the id {found}: "
            "one of the two is wrong"
        )
    return found


def _block_size(family: Family, path: Path, config: Mapping[str, Any]) -> int:
    size = config.get(family.block_key) if family.block_key else None
    if size is None:
        return family.block_size
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise CheckpointError(f"{path}: {family.block_key} is {size!r}, a number of tokens expected")
    return size
