"""A model back in its family's own layout: the names, files and ``config.json`` that its reference code loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from diffusion_core.checkpoints.atomic import new_folder
from diffusion_core.checkpoints.families.family import Family
from diffusion_core.checkpoints.hf_config import CONFIG_FILE
from diffusion_core.checkpoints.hf_source import SINGLE_FILE
from diffusion_core.checkpoints.tokenizer_file import TOKENIZER_FILE
from diffusion_core.checkpoints.weights import plan_targets
from diffusion_core.model.transformer import Transformer


def reference_tensors(model: Transformer, family: Family) -> dict[str, torch.Tensor]:
    """The model's tensors under the family's names, as views: what is stacked here is several tensors there."""
    state = model.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    for target in plan_targets(model.config, family.naming):
        start = 0
        for piece in target.pieces:
            stop = start + piece.shape[0]
            tensors[piece.name] = state[target.name][start:stop]
            start = stop
    return tensors


def export_folder(
    folder: Path, model: Transformer, tokenizer: Tokenizer, family: Family, config: Mapping[str, Any]
) -> None:
    """Write a folder in the family's layout, whole or not at all; ``config`` are the values of its ``config.json``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in reference_tensors(model, family).items()}
    with new_folder(folder) as draft:
        save_file(tensors, draft / SINGLE_FILE, metadata={"format": "pt"})
        (draft / CONFIG_FILE).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
        tokenizer.save(str(draft / TOKENIZER_FILE), pretty=False)
