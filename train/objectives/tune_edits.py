"""Objective `tune_edits`: the clean path learns to follow edit instructions; infilling in the mixture keeps it able."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from diffusion_core.checkpoints.tuning import TuningMetadata, load_tuning, save_tuning
from diffusion_core.errors import ConfigError
from diffusion_core.model.adapter import GatedAdapter
from train.adaptation.drafter_objective import load_base, make_loaders
from train.adaptation.tuning import TuningObjective
from train.config import TrainConfig
from train.objective import Objective, Saver, make_generator


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """The adapter of the clean path, its objective, and what writes it as a tuning that the engine merges."""
    adapt = config.adapt
    if not adapt.edit_rank:
        raise ConfigError("adapt.edit_rank is 0: nothing would be trained; for example --set adapt.edit_rank=32")
    checkpoint = load_base(config, device, tuned=False)
    base = checkpoint.model
    train, held_out = make_loaders(config, checkpoint)
    adapter = GatedAdapter(base.config, rank=adapt.edit_rank, alpha=adapt.edit_alpha)
    wanted = TuningMetadata(rank=adapt.edit_rank, alpha=adapt.edit_alpha)
    if config.model.tuning:
        stored = load_tuning(Path(config.model.tuning), base.config)
        if stored.metadata != wanted:
            found = stored.metadata
            raise ConfigError(f"model.tuning {config.model.tuning} has {found}, adapt.edit_* ask for {wanted}")
        adapter.load_tensors({**stored.tensors, "mask_embedding": adapter.mask_embedding.detach()})
    else:
        adapter.start(make_generator(config.seed, "edit adapter"))
    adapter.mask_embedding.requires_grad_(False)
    adapter = adapter.to(base.device, base.dtype)
    objective = TuningObjective(config, base, train, held_out)

    def save(folder: Path) -> None:
        tensors = {name: value for name, value in adapter.named_tensors().items() if name != "mask_embedding"}
        # The sum is merged in the base's dtype anyway: float32 would double the file for nothing.
        save_tuning(folder, wanted, {name: value.to(torch.bfloat16) for name, value in tensors.items()})

    return adapter, objective, save
