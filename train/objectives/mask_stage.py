"""The mask stage: the first 80 % of the paper's diffusion training steps (section 3.1, eq. 1-2, 5)."""

from __future__ import annotations

import torch
from torch import nn

from train.config import TrainConfig
from train.objective import Objective, Saver
from train.objectives.denoising import build_denoising


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """Model, objective of eq. 5 and saver."""
    start, objective, saver = build_denoising(config, device, with_edits=False)
    return start.model, objective, saver
