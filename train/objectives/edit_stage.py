"""The edit stage: the last 20 % of the diffusion training steps, both corruptions (section 3.1, eq. 3-4, 6)."""

from __future__ import annotations

import torch
from torch import nn

from train.config import TrainConfig
from train.objective import Objective, Saver
from train.objectives.denoising import build_denoising


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """Model, objective of eq. 6 and saver."""
    start, objective, saver = build_denoising(config, device, with_edits=True)
    return start.model, objective, saver
