"""The training loop: it learns, resumes bit for bit, stops in time, and refuses what cannot be right."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import MaskedLines, PoisonedLines, SlowLines, build_tiny, small_config
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.errors import CheckpointError, ConfigError
from train.config import BudgetConfig, CheckpointConfig, ModelSettings, OptimConfig, ScheduleConfig, TrainConfig
from train.errors import TrainingDiverged, TrainingError
from train.metrics import EVALUATION, STEP, read_metrics
from train.objective import LossOutput, Objective, Saver
from train.recipes import Stage
from train.run import RunOptions, run_plan
from train.trainer import Outcome

TESTS = Path(__file__).parents[1]
CPU = torch.device("cpu")


def run(config: TrainConfig, out: Path, build: Any = build_tiny, **options: Any) -> Outcome:
    stage = Stage(name=config.objective, config=config, time_share=1.0)
    settings = RunOptions(out=out, device="cpu", started=time.monotonic(), **{"with_report": False, **options})
    return run_plan([stage], settings, Console(quiet=True), lambda _: build)[-1]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def deterministic(out: Path) -> list[dict[str, Any]]:
    """The records without what the clock decides."""
    timed = {"steps_per_second", "tokens_per_second", "sequences_per_second", "mfu", "seconds"}
    return [{k: v for k, v in record.items() if k not in timed} for record in read_metrics(out)]


def stopping_after(step: int) -> Any:
    """A builder whose objective asks the run to stop, as a signal would, once it has done ``step`` steps."""

    class Stopping(MaskedLines):
        is_stopped = False  # a second signal would end the process at once

        def loss(self, model: nn.Module, batch: Any, number: int) -> LossOutput:
            if number + 1 == step and not self.is_stopped:
                self.is_stopped = True
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(model, batch, number)

    return with_objective(Stopping)


def with_objective(make: Any) -> Any:
    def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
        model, _, saver = build_tiny(config, device)
        return model, make(config), saver

    return build


def test_learns_and_leaves_what_the_engine_loads(tmp_path: Path) -> None:
    config = small_config(budget=BudgetConfig(steps=60, evaluate_every=30))
    outcome = run(config, tmp_path, with_report=True)
    assert (outcome.step, outcome.reason) == (60, "done")
    evaluations = [record for record in read_metrics(tmp_path) if record["kind"] == EVALUATION]
    assert [record["step"] for record in evaluations] == [0, 30, 60]
    assert evaluations[-1]["loss"] < 0.6 * evaluations[0]["loss"]
    loaded = load_checkpoint(str(tmp_path / "checkpoint"), dtype=torch.float32, device=CPU)
    figures = MaskedLines(config).evaluate(loaded.model, 60)
    assert figures["loss"] == pytest.approx(evaluations[-1]["loss"], rel=1e-6)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["num_sequences"] == 60 * 8 and record["num_tokens"] == 60 * 8 * 24
    assert 0 < record["mfu"] < 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optim": OptimConfig(learning_rate=3e-3, accumulation=2)},
        {"model": ModelSettings(dtype="bfloat16", block_size=8)},
    ],
    ids=["float32", "accumulated", "bfloat16"],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = small_config(**changes)
    run(config, tmp_path / "whole")
    stopped = run(config, tmp_path / "parts", stopping_after(3))
    assert (stopped.step, stopped.reason) == (3, "SIGTERM")
    stopped = run(config, tmp_path / "parts", stopping_after(5), must_resume=True)
    assert stopped.step == 5
    assert not same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    run(config, tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    state = "state/tensors/state.safetensors"
    assert same(load_file(tmp_path / "whole" / state), load_file(tmp_path / "parts" / state))
    whole, parts = deterministic(tmp_path / "whole"), deterministic(tmp_path / "parts")
    assert [r for r in whole if r["kind"] == STEP] == [r for r in parts if r["kind"] == STEP]


def test_a_killed_run_goes_on_from_its_last_state(tmp_path: Path) -> None:
    """SIGKILL between two saves: the steps behind the last state are done again, to the same end."""
    config = small_config(checkpoint=CheckpointConfig(every_steps=2, every_seconds=3600))
    run(config, tmp_path / "whole")
    script = (
        "import sys; sys.path[:0] = [sys.argv[2], sys.argv[3]]\n"
        "from pathlib import Path; from test_trainer import run; from helpers.tiny_training import small_config\n"
        "from train.config import CheckpointConfig\n"
        "run(small_config(checkpoint=CheckpointConfig(every_steps=2, every_seconds=3600)), Path(sys.argv[1]))\n"
    )
    arguments = [str(tmp_path / "killed"), str(TESTS), str(TESTS / "train")]
    environment = {**os.environ, "TINY_KILL_AT": "5", "PYTHONPATH": str(TESTS.parent)}
    process = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=False)
    assert process.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "killed/state/state.json").read_text())["step"] == 4
    # The report of the fifth step was written, its state was not: it must not stand there twice.
    assert [r["step"] for r in read_metrics(tmp_path / "killed") if r["kind"] == STEP][-1] == 5
    run(config, tmp_path / "killed", must_resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert deterministic(tmp_path / "killed") == deterministic(tmp_path / "whole")


def test_accumulation_does_not_change_the_gradient(tmp_path: Path) -> None:
    """Two micro-batches of four are the batch of eight: the loss is normalised by the global count."""

    class Whole(MaskedLines):
        def loss(self, model: nn.Module, batch: Any, step: int) -> LossOutput:
            self.num_seen = torch.zeros(())
            torch.manual_seed(0)
            return super().loss(model, batch, step)

    class Halves(Whole):
        def draw(self, step: int, rank: int, world_size: int) -> Any:
            return super().draw(step // 2, step % 2, 2)

    once, twice = OptimConfig(learning_rate=3e-3), OptimConfig(learning_rate=3e-3, accumulation=2)
    run(small_config(optim=once), tmp_path / "whole", with_objective(Whole))
    run(small_config(optim=twice), tmp_path / "halves", with_objective(Halves))
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(tensor, weights(tmp_path / "halves")[name], atol=2e-5, rtol=1e-4)


def test_float32_masters_keep_what_bfloat16_would_lose(tmp_path: Path) -> None:
    """Steps far below a bfloat16's resolution add up in the masters."""
    tiny_steps = OptimConfig(learning_rate=1e-6, weight_decay=0.0)
    for masters in (True, False):
        config = small_config(
            model=ModelSettings(dtype="bfloat16", block_size=8),
            optim=dataclasses.replace(tiny_steps, master_weights=masters),
            schedule=ScheduleConfig(shape="constant", warmup_steps=0),
        )
        run(config, tmp_path / str(masters))
    before = dict(build_tiny(small_config(), CPU)[0].named_parameters())["norm.weight"].detach().bfloat16()
    moved = load_file(tmp_path / "True/state/tensors/state.safetensors")["master.norm.weight"]
    stuck = load_file(tmp_path / "False/state/tensors/state.safetensors")["master.norm.weight"]
    assert moved.dtype == torch.float32 and stuck.dtype == torch.bfloat16
    assert torch.equal(stuck, before)
    assert 0 < float((moved - before.float()).abs().max()) < 1e-4


def test_a_frozen_part_is_neither_trained_nor_stored(tmp_path: Path) -> None:
    def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
        model, objective, saver = build_tiny(config, device)
        model.requires_grad_(False)
        model.get_submodule("layers.1.mlp").requires_grad_(True)
        return model, objective, saver

    run(small_config(), tmp_path, build)
    stored = load_file(tmp_path / "state/tensors/state.safetensors")
    assert {name.split(".", 1)[1].rsplit(".", 2)[0] for name in stored if name.startswith("master")} == {"layers.1.mlp"}
    before = build_tiny(small_config(), CPU)[0].state_dict()
    changed = {name for name, tensor in weights(tmp_path).items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("layers.1.mlp") for name in changed)


def test_nothing_to_train_is_said(tmp_path: Path) -> None:
    def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
        model, objective, saver = build_tiny(config, device)
        return model.requires_grad_(False), objective, saver

    with pytest.raises(TrainingError, match="no trained parameters"):
        run(small_config(), tmp_path, build)


@pytest.mark.parametrize("only_gradient", [False, True])
def test_a_non_finite_loss_stops_and_names_seed_and_batch(tmp_path: Path, only_gradient: bool) -> None:
    config = small_config(checkpoint=CheckpointConfig(every_steps=1, every_seconds=3600))
    build = with_objective(lambda config: PoisonedLines(config, 3, only_gradient=only_gradient))
    with pytest.raises(TrainingDiverged) as caught:
        run(config, tmp_path, build)
    assert (caught.value.seed, caught.value.step) == (3, 3)
    assert caught.value.batch_ids[:2] == ("line/3/0", "line/3/1")
    assert ("gradient" if only_gradient else "loss") in str(caught.value)
    # The last state is the one before, with finite weights.
    assert json.loads((tmp_path / "state/state.json").read_text())["step"] == 3
    assert all(bool(tensor.isfinite().all()) for tensor in weights(tmp_path).values())


def test_another_configuration_is_refused_with_its_fields(tmp_path: Path) -> None:
    config = small_config()
    run(config, tmp_path, stopping_after(2))
    other = dataclasses.replace(config, seed=4, optim=dataclasses.replace(config.optim, learning_rate=1e-3))
    with pytest.raises(ConfigError) as caught:
        run(other, tmp_path)
    assert "seed: 3 -> 4" in str(caught.value) and "optim.learning_rate: 0.003 -> 0.001" in str(caught.value)
    # How often it is evaluated and saved does not change what is computed.
    free = dataclasses.replace(config, checkpoint=CheckpointConfig(every_steps=3))
    assert run(free, tmp_path).step == 8
    assert run(free, tmp_path).reason == "done before"


def test_resume_needs_a_state(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no state"):
        run(small_config(), tmp_path, must_resume=True)


def test_a_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    run(small_config(), tmp_path, stopping_after(2))

    def wider(config: TrainConfig, device: torch.device) -> Any:
        return build_tiny(config, device, intermediate_size=96)

    with pytest.raises(CheckpointError, match=r"mlp\.\w+\.weight has shape .* this model's has .*another model"):
        run(small_config(), tmp_path, wider)

    def deeper(config: TrainConfig, device: torch.device) -> Any:
        return build_tiny(config, device, num_layers=3)

    with pytest.raises(CheckpointError, match=r"no tensor master\.layers\.2"):
        run(small_config(), tmp_path, deeper)


@pytest.mark.parametrize("damage", ["json", "cut", "gone"])
def test_a_damaged_state_is_named(tmp_path: Path, damage: str) -> None:
    run(small_config(), tmp_path, stopping_after(2))
    tensors = tmp_path / "state/tensors/state.safetensors"
    if damage == "json":
        (tmp_path / "state/state.json").write_text('{"format": 1, "step":')
    elif damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    else:
        tensors.unlink()
    with pytest.raises(CheckpointError, match=r"state"):
        run(small_config(), tmp_path)


def test_a_state_that_a_kill_left_between_two_renames_is_found(tmp_path: Path) -> None:
    run(small_config(), tmp_path, stopping_after(2))
    (tmp_path / "state").rename(tmp_path / ".state.old")
    assert run(small_config(), tmp_path, stopping_after(4), must_resume=True).step == 4


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    class Nested(MaskedLines):
        def loss(self, model: nn.Module, batch: Any, step: int) -> LossOutput:
            with pytest.raises(ConfigError, match="another run"):
                run(small_config(), tmp_path)
            return super().loss(model, batch, step)

    assert run(small_config(budget=BudgetConfig(steps=1)), tmp_path, with_objective(Nested)).step == 1


def test_the_time_budget_ends_in_time_with_everything_saved(tmp_path: Path) -> None:
    config = small_config(budget=BudgetConfig(steps=10_000, evaluate_every=0))
    start = time.monotonic()
    outcome = run(config, tmp_path, with_objective(lambda config: SlowLines(config, 0.05)), time_budget=6.0)
    assert time.monotonic() - start < 9.0
    assert outcome.reason == "time budget" and 10 < outcome.step < 120
    assert json.loads((tmp_path / "state/state.json").read_text())["step"] == outcome.step
    assert read_metrics(tmp_path)[-1]["step"] == outcome.step
    assert (tmp_path / "checkpoint/model.safetensors").exists()


def test_a_step_that_would_outlast_the_budget_is_given_up(tmp_path: Path) -> None:
    """What the objective remembers is as before the step, so that the run goes on as if it had not been begun."""

    class Stuck(MaskedLines):
        def loss(self, model: nn.Module, batch: Any, step: int) -> LossOutput:
            output = super().loss(model, batch, step)
            if step == 3:
                time.sleep(60)
            return output

    config = small_config()
    start = time.monotonic()
    outcome = run(config, tmp_path / "parts", with_objective(Stuck), time_budget=4.0)
    assert time.monotonic() - start < 9.0
    assert (outcome.step, outcome.reason) == (3, "time budget")
    run(config, tmp_path / "parts", must_resume=True)
    run(config, tmp_path / "whole")
    state = "state/tensors/state.safetensors"
    assert same(load_file(tmp_path / "whole" / state), load_file(tmp_path / "parts" / state))


def test_a_plan_goes_on_where_its_time_ran_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage whose successor has begun is over; one for which no time is left is for the next run."""
    first = small_config(budget=BudgetConfig(steps=10_000, evaluate_every=0))
    second = dataclasses.replace(first, objective="edit_stage", budget=BudgetConfig(steps=4, evaluate_every=0))
    stages = [
        Stage(name="mask_stage", config=first, time_share=0.6),
        Stage(name="edit_stage", config=second, time_share=0.4),
    ]

    def plan_with(seconds: float | None) -> list[tuple[int, str]]:
        options = RunOptions(
            out=tmp_path, device="cpu", with_report=False, time_budget=seconds, started=time.monotonic()
        )
        slow = with_objective(lambda config: SlowLines(config, 0.05))
        outcomes = run_plan(stages, options, Console(quiet=True), lambda _: slow)
        return [(outcome.step, outcome.reason) for outcome in outcomes]

    # 3.6 s for the first stage, and too little for the second however early a busy machine lets it end.
    monkeypatch.setattr("train.run.MIN_STAGE_SECONDS", 10.0)
    [(steps, reason)] = plan_with(6.0)
    assert reason == "time budget" and 0 < steps < 120
    monkeypatch.undo()
    [(more, reason), last] = plan_with(15.0)
    assert reason == "time budget" and more > steps and last == (4, "done")
    assert plan_with(None) == [(more, "done before"), (4, "done before")]


def test_the_rate_decays_over_the_time_budget(tmp_path: Path) -> None:
    schedule = ScheduleConfig(shape="linear", warmup_steps=0, final_ratio=0.0, decay_over="time")
    config = small_config(schedule=schedule, budget=BudgetConfig(steps=10_000, evaluate_every=0))
    slow = with_objective(lambda config: SlowLines(config, 0.05))
    with pytest.raises(ConfigError, match="--time-budget"):
        run(config, tmp_path, slow)
    run(config, tmp_path, slow, time_budget=4.0)
    rates = [record["learning_rate"] for record in read_metrics(tmp_path) if record["kind"] == STEP]
    assert rates[0] > 0.8 * 3e-3 and rates[-1] < 0.12 * 3e-3
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))


def test_a_sigint_of_the_terminal_saves_and_says_so(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path[:0] = [sys.argv[2], sys.argv[3]]\n"
        "from pathlib import Path; from test_trainer import run; from helpers.tiny_training import small_config\n"
        "from train.config import BudgetConfig\n"
        "print(run(small_config(budget=BudgetConfig(steps=10000, evaluate_every=0)), Path(sys.argv[1])))\n"
    )
    arguments = [str(tmp_path), str(TESTS), str(TESTS / "train")]
    environment = {**os.environ, "TINY_SLOW": "0.05", "PYTHONPATH": str(TESTS.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / "metrics.jsonl").exists():
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "reason='SIGINT'" in output
    step = json.loads((tmp_path / "state/state.json").read_text())["step"]
    assert 0 < step < 10_000 and f"step={step}," in output


def test_stages_go_on_from_each_other(tmp_path: Path) -> None:
    """The second stage starts from the first one's checkpoint; a plan that is done runs nothing again."""
    bases = []

    def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
        model, objective, saver = build_tiny(config, device)
        bases.append(config.model.base)
        if config.model.base:
            model.load_state_dict(
                load_checkpoint(config.model.base, dtype=torch.float32, device=device).model.state_dict()
            )
        return model, objective, saver

    first = small_config()
    second = dataclasses.replace(first, objective="edit_stage")
    stages = [
        Stage(name="mask_stage", config=first, time_share=0.5),
        Stage(name="edit_stage", config=second, time_share=0.5),
    ]
    options = RunOptions(out=tmp_path, device="cpu")
    outcomes = run_plan(stages, options, Console(quiet=True), lambda _: build)
    assert [outcome.step for outcome in outcomes] == [8, 8]
    assert "all stages" in (tmp_path / "report.html").read_text()
    assert bases == ["", str(tmp_path / "1-mask_stage/checkpoint")]
    assert (tmp_path / "checkpoint.txt").read_text().strip() == "2-edit_stage/checkpoint"
    last = [r for r in read_metrics(tmp_path / "1-mask_stage") if r["kind"] == EVALUATION][-1]
    start = next(r for r in read_metrics(tmp_path / "2-edit_stage") if r["kind"] == EVALUATION)
    assert start["step"] == 0 and start["loss"] == pytest.approx(last["loss"], rel=1e-6)
    again = run_plan(stages, options, Console(quiet=True), lambda _: build)
    assert [outcome.reason for outcome in again] == ["done before", "done before"]
