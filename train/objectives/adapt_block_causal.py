"""Objective `adapt_block_causal`: all weights of an autoregressive base become a block-diffusion model (eq. 6).

The counterpart of the gated adapter, for comparison on the same data: nothing is gated, so the clean path moves too.

Differs:
    Inside a block slots see each other in both directions, as in the paper; once a block is committed, its rows are
    evaluated again and causally, as the base was trained, so that prefixes keep their keys and values for any cut
    into blocks.
"""

from __future__ import annotations

import torch
from torch import nn

from diffusion_core.errors import ConfigError
from train.config import TrainConfig
from train.objective import Objective, Saver
from train.objectives.denoising import build_denoising


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """Model, objective of eq. 6 and saver.

    Raises:
        ConfigError: no base is named.
    """
    if not config.model.base:
        raise ConfigError("model.base is empty: adapting needs a base, for example --set model.base=qwen2.5-coder-0.5b")
    start, objective, saver = build_denoising(config, device, with_edits=True)
    return start.model, objective, saver
