"""One process of a distributed run of a training stage on the grammar: ``stage_worker.py OUT OBJECTIVE``.

With ``STAGE_STOP_AT`` in the environment the run is asked to stop in that step, as by a signal from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import torch  # noqa: E402
from helpers.tiny_stages import stage_config  # noqa: E402
from rich.console import Console  # noqa: E402
from torch import nn  # noqa: E402

from train.config import BudgetConfig, TrainConfig  # noqa: E402
from train.objective import LossOutput, Objective, Saver  # noqa: E402
from train.recipes import Stage  # noqa: E402
from train.run import Builder, RunOptions, find_builder, run_plan  # noqa: E402


def config_for(objective: str) -> TrainConfig:
    """Three steps; short rollouts, and as many as there are processes can share."""
    config = stage_config(objective, budget=BudgetConfig(steps=3, evaluate_every=3))
    return replace(
        config,
        data=replace(config.data, sequences=4, held_out_sequences=4),
        order=replace(config.order, pool=2, keep=1, pool_sequences=4),
        on_policy=replace(config.on_policy, rollouts=2, max_steps=4),
    )


def find_stopping(name: str) -> Builder:
    """The stage's own builder, whose objective stops the run where the environment says so."""
    builder = find_builder(name)

    def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
        model, objective, saver = builder(config, device)
        plain = objective.loss

        def loss(model: nn.Module, batch: object, step: int) -> LossOutput:
            if os.environ.get("STAGE_STOP_AT") == str(step):
                os.kill(os.getpid(), signal.SIGTERM)
            return plain(model, batch, step)

        objective.loss = loss  # type: ignore[method-assign]
        return model, objective, saver

    return build


def main(out: str, objective: str) -> None:
    """Run until the end."""
    stage = Stage(name=objective, config=config_for(objective), time_share=1.0)
    run_plan([stage], RunOptions(out=Path(out), device="cpu", with_report=False), Console(stderr=True), find_stopping)


if __name__ == "__main__":
    main(*sys.argv[1:])
