"""Configurations and random models for tests of the training stages: the grammar task in miniature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from diffusion_core.model.config import LogitAlignment
from diffusion_core.sampling.evaluate import Denoiser
from train.config import BudgetConfig, NoiseConfig, ShapeConfig, TrainConfig
from train.objectives.starting_point import StartingPoint, make_starting_point
from train.recipes import tiny_cpu

CPU = torch.device("cpu")


def stage_config(objective: str = "mask_stage", **changes: Any) -> TrainConfig:
    """The grammar task with a model of one layer; ``changes`` replace whole groups."""
    base = tiny_cpu()
    shape = ShapeConfig(
        hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16,
        max_position_embeddings=512,
    )  # fmt: skip
    config = replace(
        base,
        objective=objective,
        data=replace(base.data, sequences=6, held_out_sequences=6),
        model=replace(base.model, shape=shape, block_size=8),
        noise=NoiseConfig(block_min=4, block_max=8),  # all times: the recipe's own begin at a quarter
        order=replace(base.order, pool=3, keep=2, pool_sequences=5),
        budget=BudgetConfig(steps=2, evaluate_every=0),
    )
    return replace(config, **changes)


def peaked_start(seed: int = 0, alignment: LogitAlignment = LogitAlignment.SAME_POSITION) -> StartingPoint:
    """A random model with confident, context-dependent output: some slots pass any threshold, others do not."""
    start = make_starting_point(stage_config(), CPU)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in start.model.named_parameters():
            if parameter.dim() > 1:
                scale = 0.9 if "embed" in name else 0.35
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    contract = replace(start.contract, alignment=alignment)
    return StartingPoint(start.model.eval(), start.tokenizer, contract)


def peaked_denoiser(seed: int = 0, alignment: LogitAlignment = LogitAlignment.SAME_POSITION) -> Denoiser:
    """That model as the decoder sees it."""
    start = peaked_start(seed, alignment)
    return Denoiser(start.model, start.contract)


def random_prompts(num: int, seed: int = 0, least: int = 2, most: int = 20) -> list[torch.Tensor]:
    """Prompts of random bytes of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(least, most + 1, (num,), generator=generator).tolist()
    return [torch.randint(0, 256, (length,), generator=generator) for length in lengths]
