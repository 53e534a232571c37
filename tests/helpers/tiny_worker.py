"""One process of a distributed run of the tiny objective, for torchrun: ``tiny_worker.py OUT STEPS [adapter]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import torch  # noqa: E402
from helpers.tiny_training import build_tiny, small_config  # noqa: E402
from rich.console import Console  # noqa: E402
from torch import nn  # noqa: E402

from train.config import BudgetConfig, CheckpointConfig, TrainConfig  # noqa: E402
from train.objective import Objective, ObjectiveState, Saver  # noqa: E402
from train.recipes import Stage  # noqa: E402
from train.run import RunOptions, run_plan  # noqa: E402


class Wrapped(nn.Module):
    """Not a Transformer, so it is replicated, not sharded; to the objective it hands the model inside."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def build_wrapped(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """The tiny model as something that every process holds whole."""
    model, objective, saver = build_tiny(config, device)

    class Unwrapping:
        """Remembers which process it is in; one that is given another's state refuses it."""

        draw = staticmethod(objective.draw)
        rank = int(os.environ.get("RANK", "0"))

        def state(self) -> ObjectiveState:
            return ObjectiveState(tensors={"rank": torch.tensor([self.rank])}, values={"rank": self.rank})

        def load_state(self, state: ObjectiveState) -> None:
            whose = self.rank if state.is_own else 0
            assert (state.values["rank"], state.tensors["rank"].tolist()) == (whose, [whose])

        def loss(self, model: nn.Module, batch: object, step: int) -> object:
            return objective.loss(model.model, batch, step)

        def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
            return objective.evaluate(model.model, step)

    return Wrapped(model), Unwrapping(), saver  # type: ignore[return-value]


def config_for(steps: int) -> TrainConfig:
    """What the workers and the test that compares with them train."""
    return small_config(
        budget=BudgetConfig(steps=steps, evaluate_every=4),
        checkpoint=CheckpointConfig(every_steps=2, every_seconds=3600),
    )


def main(out: str, steps: str, kind: str = "sharded") -> None:
    """Run until the end."""
    config = config_for(int(steps))
    stage = Stage(name=config.objective, config=config, time_share=1.0)
    options = RunOptions(out=Path(out), device="cpu", with_report=False)
    build = build_wrapped if kind == "replicated" else build_tiny
    run_plan([stage], options, Console(stderr=True), lambda _: build)


if __name__ == "__main__":
    main(*sys.argv[1:])
