"""Recipes: functions that return the configuration of a stage, and plans of several stages. No torch.

A recipe states what differs from the defaults of ``config.py``; everything else is set with ``--set``. The settings
are for one CUDA GPU of 80 GB or more unless the recipe says otherwise; ``on_cpu`` turns them into settings for two
CPU cores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.errors import ConfigError
from train.config import (
    AdaptConfig,
    BudgetConfig,
    CheckpointConfig,
    DataConfig,
    ModelSettings,
    NoiseConfig,
    OnPolicyConfig,
    OptimConfig,
    OrderConfig,
    ScheduleConfig,
    ShapeConfig,
    TrainConfig,
)

# The paper's 80 / 20 split between mask corruption and both corruptions together (3.1).
MASK_SHARE = 0.8
INFILL_KINDS = ("infill_line", "infill_lines", "infill_span", "infill_node", "infill_end")
EDIT_KINDS = ("edit_commit", "edit_synthetic")


def mask_stage() -> TrainConfig:
    """Mask corruption alone, the first 80 % of the paper's steps (3.1, eq. 1-2, 8)."""
    return TrainConfig(
        recipe="mask_stage",
        objective="mask_stage",
        data=DataConfig(sequences=64, max_tokens=1024),
        model=ModelSettings(
            dtype="bfloat16",
            shape=ShapeConfig(
                hidden_size=768, intermediate_size=2048, num_layers=12, num_heads=12, num_kv_heads=4, head_dim=64
            ),
        ),
        optim=OptimConfig(learning_rate=4e-4, weight_decay=0.1),
        schedule=ScheduleConfig(shape="constant", warmup_steps=500),
        budget=BudgetConfig(steps=80_000, evaluate_every=2000, log_every=10),
    )


def edit_stage() -> TrainConfig:
    """Mask and edit corruption together, the last 20 % of the paper's steps (3.1, eq. 3-6). Needs model.base."""
    first = mask_stage()
    return replace(
        first,
        recipe="edit_stage",
        objective="edit_stage",
        optim=replace(first.optim, learning_rate=3e-4),
        schedule=ScheduleConfig(shape="cosine", warmup_steps=100),
        budget=replace(first.budget, steps=20_000, evaluate_every=1000),
    )


def order_distill() -> TrainConfig:
    """Fine-tuning along the best of the model's own trajectories (3.2, eq. 7-9). Needs model.base."""
    return replace(
        mask_stage(),
        recipe="order_distill",
        objective="order_distill",
        order=OrderConfig(pool_sequences=4096, refresh_every=1000),
        optim=OptimConfig(learning_rate=1e-4),
        schedule=ScheduleConfig(shape="cosine", warmup_steps=50),
        budget=BudgetConfig(steps=4000, evaluate_every=500, log_every=10),
    )


def on_policy() -> TrainConfig:
    """Fewer denoising steps at the verifier's approval (3.3, eq. 10-11). Needs model.base."""
    return replace(
        mask_stage(),
        recipe="on_policy",
        objective="on_policy",
        data=DataConfig(sequences=16, max_tokens=1024),
        optim=OptimConfig(learning_rate=2e-5, beta2=0.99),
        schedule=ScheduleConfig(shape="constant", warmup_steps=20),
        budget=BudgetConfig(steps=1000, evaluate_every=50),
    )


def adapt_gated() -> TrainConfig:
    """A gated adapter makes an autoregressive base denoise blocks (training.md 2). One H200: ``--time-budget 20m``."""
    return TrainConfig(
        recipe="adapt_gated",
        objective="adapt_gated",
        data=DataConfig(sequences=32, max_tokens=1024, held_out_sequences=64),
        model=ModelSettings(base=DEFAULT_MODEL, dtype="bfloat16", block_size=16),
        noise=NoiseConfig(block_min=4, block_max=16),
        adapt=AdaptConfig(rank=32, alpha=32.0, slots=512, full_mask_share=0.6, offset_decay=0.9, distill_weight=0.5),
        optim=OptimConfig(learning_rate=1e-3, beta2=0.99),
        schedule=ScheduleConfig(shape="cosine", warmup_steps=50, final_ratio=0.02, decay_over="time", decay_start=0.2),
        # More steps than twenty minutes hold: the time budget ends the run, and the rate decays over the time.
        budget=BudgetConfig(steps=20_000, evaluate_every=400, log_every=10),
        checkpoint=CheckpointConfig(every_seconds=180),
    )


def adapt_draft_head() -> TrainConfig:
    """A draft head of a few layers reads the base's hidden states (training.md 2). The base is untouched."""
    gated = adapt_gated()
    return replace(
        gated,
        recipe="adapt_draft_head",
        objective="adapt_draft_head",
        adapt=replace(gated.adapt, head_layers=2, slots=1024),
        optim=OptimConfig(learning_rate=4e-4, beta2=0.99),
    )


def adapt_block_causal() -> TrainConfig:
    """All weights of an autoregressive base become a block-causal diffusion model, as the paper has it."""
    gated = adapt_gated()
    return replace(
        gated,
        recipe="adapt_block_causal",
        objective="adapt_block_causal",
        data=replace(gated.data, sequences=64),
        optim=OptimConfig(learning_rate=2e-5, weight_decay=0.01, accumulation=2),
        checkpoint=CheckpointConfig(every_seconds=600),
    )


def tune_edits() -> TrainConfig:
    """A low-rank adapter on the clean path learns to follow edit instructions (training.md 2b)."""
    mixture = dict.fromkeys(INFILL_KINDS, 0.5 / len(INFILL_KINDS)) | dict.fromkeys(EDIT_KINDS, 0.5 / len(EDIT_KINDS))
    gated = adapt_gated()
    return replace(
        gated,
        recipe="tune_edits",
        objective="tune_edits",
        data=DataConfig(sequences=32, max_tokens=2048, mixture=mixture, held_out_sequences=64),
        adapt=replace(gated.adapt, edit_rank=32, edit_alpha=64.0, changed_weight=4.0),
        optim=OptimConfig(learning_rate=2e-4, beta2=0.99),
    )


def on_cpu(config: TrainConfig) -> TrainConfig:
    """The same recipe for two CPU cores and hours: short sequences, few slots, checkpoints that survive a restart."""
    return replace(
        config,
        data=replace(config.data, sequences=4, max_tokens=288, held_out_sequences=16),
        adapt=replace(config.adapt, slots=96, vocabulary=16_384),
        schedule=replace(config.schedule, shape="constant", warmup_steps=20, decay_over="steps"),
        budget=replace(config.budget, evaluate_every=200, log_every=1),
        checkpoint=CheckpointConfig(every_seconds=300),
    )


def tiny_cpu() -> TrainConfig:
    """The paper's whole recipe on a tiny model and the synthetic grammar: minutes on two CPU cores (four stages)."""
    shape = ShapeConfig(
        hidden_size=64,
        intermediate_size=160,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_position_embeddings=512,
    )
    return TrainConfig(
        recipe="tiny_cpu",
        objective="mask_stage",
        data=DataConfig(source="grammar", sequences=32, max_tokens=96, held_out_sequences=64),
        model=ModelSettings(block_size=16, shape=shape),
        # States with one or two masks in a block of 16 weigh much and come seldom: too much noise for so few steps.
        noise=NoiseConfig(block_min=4, block_max=16, min_time=0.25),
        # Once and from many prompts: a small pool that is made anew again and again learns its own mistakes.
        order=OrderConfig(pool=4, keep=2, elbo_samples=4, pool_sequences=256, refresh_every=0),
        # What a wrong answer costs against what a denoising step costs: the first has to weigh much more.
        on_policy=OnPolicyConfig(verifier="exact", rollouts=4, verifier_weight=16.0, length_weight=1.0),
        optim=OptimConfig(learning_rate=3e-3),
        schedule=ScheduleConfig(shape="cosine", warmup_steps=20),
        budget=BudgetConfig(steps=480, evaluate_every=120),
    )


def tiny_stages() -> list[TrainConfig]:
    """The stages of :func:`tiny_cpu`, in order."""
    first = tiny_cpu()
    edit = replace(
        first,
        objective="edit_stage",
        optim=replace(first.optim, learning_rate=2e-3),
        schedule=replace(first.schedule, warmup_steps=10),
        budget=BudgetConfig(steps=round(first.budget.steps * (1 - MASK_SHARE) / MASK_SHARE), evaluate_every=40),
    )
    order = replace(
        edit,
        objective="order_distill",
        optim=replace(first.optim, learning_rate=3e-4),
        budget=BudgetConfig(steps=60, evaluate_every=20),
    )
    policy = replace(
        order,
        objective="on_policy",
        data=replace(first.data, sequences=8),
        optim=replace(first.optim, learning_rate=5e-4, beta2=0.99),
        # A rate that falls to nothing: at a constant one the last steps may be those that unlearn.
        schedule=replace(first.schedule, warmup_steps=10),
        budget=BudgetConfig(steps=70, evaluate_every=10),
    )
    return [first, edit, order, policy]


def from_scratch() -> TrainConfig:
    """The paper's whole recipe from random weights (four stages); the first one is :func:`mask_stage`."""
    return replace(mask_stage(), recipe="from_scratch")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a plan: its configuration and its share of the plan's time budget."""

    name: str
    config: TrainConfig
    time_share: float


RECIPES: tuple[Callable[[], TrainConfig], ...] = (
    tiny_cpu,
    mask_stage,
    edit_stage,
    order_distill,
    on_policy,
    adapt_gated,
    adapt_draft_head,
    adapt_block_causal,
    from_scratch,
    tune_edits,
)


def get_recipe(name: str) -> TrainConfig:
    """The configuration of the recipe called ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    for recipe in RECIPES:
        if recipe.__name__ == name:
            return recipe()
    raise ConfigError(f"there is no recipe {name}: known are {', '.join(recipe.__name__ for recipe in RECIPES)}")


def plan(name: str) -> list[Stage]:
    """The stages of a recipe, in order: one for most, four for the whole recipe of the paper.

    Every stage after the first starts from the checkpoint of the one before (``run.py`` sets ``model.base``).
    """
    first = get_recipe(name)
    if name == "from_scratch":
        configs = [first, edit_stage(), order_distill(), on_policy()]
        return _as_stages(name, configs, (0.6, 0.15, 0.1, 0.15))
    if name == "tiny_cpu":
        return _as_stages(name, tiny_stages(), (0.45, 0.15, 0.15, 0.25))
    return [Stage(name=first.objective, config=first, time_share=1.0)]


def _as_stages(name: str, configs: list[TrainConfig], shares: tuple[float, ...]) -> list[Stage]:
    return [
        Stage(name=config.objective, config=replace(config, recipe=name), time_share=share)
        for config, share in zip(configs, shares, strict=True)
    ]
