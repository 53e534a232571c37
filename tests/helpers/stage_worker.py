"""One process of a distributed run of a training stage on the grammar: ``stage_worker.py OUT OBJECTIVE``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from helpers.tiny_stages import stage_config  # noqa: E402
from rich.console import Console  # noqa: E402

from train.config import BudgetConfig, TrainConfig  # noqa: E402
from train.recipes import Stage  # noqa: E402
from train.run import RunOptions, run_plan  # noqa: E402


def config_for(objective: str) -> TrainConfig:
    """Three steps; short rollouts, and as many as there are processes can share."""
    config = stage_config(objective, budget=BudgetConfig(steps=3, evaluate_every=3))
    return replace(
        config,
        data=replace(config.data, sequences=4, held_out_sequences=4),
        order=replace(config.order, pool=2, keep=1, pool_sequences=4),
        on_policy=replace(config.on_policy, rollouts=2, max_steps=4),
    )


def main(out: str, objective: str) -> None:
    """Run until the end."""
    stage = Stage(name=objective, config=config_for(objective), time_share=1.0)
    run_plan([stage], RunOptions(out=Path(out), device="cpu", with_report=False), Console(stderr=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
