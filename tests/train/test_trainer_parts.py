"""Pieces of the trainer on their own: rate, optimiser, deadline, metrics, throughput, disk."""

from __future__ import annotations

import io
import itertools
import math
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_training import SlowLines, build_tiny, small_config
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from diffusion_core.errors import CheckpointError, ConfigError
from train.config import CheckpointConfig, OptimConfig, ScheduleConfig, TrainConfig
from train.deadline import Deadline, parse_duration
from train.errors import TrainingDiverged
from train.metrics import MetricsFile, MetricSums, average, read_metrics
from train.objective import LossOutput, Objective, Saver, derive_seed, make_generator
from train.optim import MasterOptimizer, learning_rate
from train.progress import RunDisplay, format_rate, format_seconds
from train.recipes import Stage
from train.run import RunOptions, find_builder, run_plan
from train.throughput import FlopMeter, measure_peak


@given(
    shape=st.sampled_from(["constant", "linear", "cosine"]),
    final=st.floats(0, 1),
    start=st.floats(0, 0.9),
    warmup=st.integers(0, 50),
)
def test_the_rate_rises_then_falls_to_its_end(shape: str, final: float, start: float, warmup: int) -> None:
    config = ScheduleConfig(shape=shape, warmup_steps=warmup, final_ratio=final, decay_start=start)
    rates = [learning_rate(config, 2.0, step, 0.0) for step in range(warmup + 3)]
    assert all(a < b for a, b in itertools.pairwise(rates[: warmup + 1]))
    assert rates[warmup:] == pytest.approx([2.0] * 3)
    falling = [learning_rate(config, 2.0, 1000, k / 50) for k in range(51)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))
    assert falling[-1] == pytest.approx(2.0 if shape == "constant" else 2.0 * final)
    assert all(rate == pytest.approx(2.0) for rate in falling[: int(50 * start)])


def test_the_cosine_is_half_way_in_the_middle() -> None:
    config = ScheduleConfig(shape="cosine", warmup_steps=0, final_ratio=0.2)
    assert learning_rate(config, 1.0, 10, 0.5) == pytest.approx(0.6)


def test_the_optimiser_is_adamw_with_decay_on_matrices_only() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    config = OptimConfig(learning_rate=1e-2, weight_decay=0.3)
    optimizer = MasterOptimizer(ours.named_parameters(), config)
    reference = torch.optim.AdamW(
        [{"params": [theirs.weight], "weight_decay": 0.3}, {"params": [theirs.bias], "weight_decay": 0.0}],
        lr=1e-2, betas=(0.9, 0.95), eps=1e-8,
    )  # fmt: skip
    for _ in range(4):
        x = torch.randn(7, 5)
        ours(x).square().sum().backward()
        optimizer.collect_gradients()
        assert ours.weight.grad is None
        optimizer.step(1e-2)
        reference.zero_grad()
        theirs(x).square().sum().backward()
        reference.step()
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_a_parameter_that_no_loss_reaches_stays() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    before = layers[1].weight.detach().clone()
    optimizer = MasterOptimizer(layers.named_parameters(), OptimConfig())
    layers[0](torch.ones(1, 2)).sum().backward()
    optimizer.collect_gradients()
    assert float(optimizer.squared_norm()) == pytest.approx(6.0)  # 2 x 2 ones, and 2 biases
    optimizer.scale_gradients(0.5)
    assert float(optimizer.squared_norm()) == pytest.approx(1.5)
    optimizer.step(0.1)
    assert torch.equal(layers[1].weight, before)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("45s", 45), ("20m", 1200), ("1h30m", 5400), ("2d", 172800), (" 1.5 h ", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "20x", "0", "-5m", "inf", "nan", "1m2"])
def test_a_wrong_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


def test_the_deadline_keeps_a_reserve_for_what_must_be_written() -> None:
    deadline = Deadline(seconds=100.0, start=time.monotonic() - 50)
    assert deadline.has_room_for_step() and deadline.has_room_for_evaluation()
    deadline.note_save(20.0)  # 1.5 x 20 for the save, 6 for the report
    assert deadline.has_room_for_step()
    deadline.note_step(12.0)
    assert not deadline.has_room_for_step()
    assert deadline.used_share == pytest.approx(50 / 64, abs=0.01)
    deadline.note_evaluation(30.0)
    assert not deadline.has_room_for_evaluation()
    assert Deadline().has_room_for_step() and Deadline().used_share == 0


def test_seeds_and_generators_are_functions_of_their_parts() -> None:
    seeds = {derive_seed(seed, step, rank) for seed in range(4) for step in range(20) for rank in range(4)}
    assert len(seeds) == 320 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed(7, "line", 3) == 1731474077438599318  # the same on every machine
    first, second = (torch.rand(5, generator=make_generator(7, "line", 3)) for _ in range(2))
    assert torch.equal(first, second)


def test_metrics_are_weighted_means_over_micro_batches() -> None:
    sums = MetricSums()
    sums.add(LossOutput(loss_sum=torch.tensor(0.0), count=1, metrics={"a": (torch.tensor(3.0), 4), "b": (1, 2)}))
    sums.add(LossOutput(loss_sum=torch.tensor(0.0), count=1, metrics={"a": (5.0, torch.tensor(12)), "c": (0, 0)}))
    taken = sums.take()
    assert taken == {"a": (8.0, 16.0), "b": (1.0, 2.0), "c": (0.0, 0.0)}
    assert average(taken) == {"a": 0.5, "b": 0.5}
    assert sums.take() == {}


def test_metrics_behind_a_state_and_a_cut_line_are_removed(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    for step in range(1, 5):
        file.write("step", step, {"loss": 1 / step})
    with file.path.open("a") as stream:
        stream.write('{"kind": "step", "st')
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]
    file.cut_after(2)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2]
    file.path.write_text('nonsense\n{"kind": "step", "step": 1}\n')
    with pytest.raises(ConfigError, match="line 1 is not JSON"):
        read_metrics(tmp_path)


def test_figures_wait_while_the_disk_is_full(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path)
    assert file.write("step", 1, {"loss": 1.0})
    size = file.path.stat().st_size
    with file_size_limit(size + 10):
        assert not file.write("step", 2, {"loss": 2.0})
        assert not file.write("step", 3, {"loss": 3.0})
        assert file.path.stat().st_size == size
    assert file.write("step", 4, {"loss": 4.0})
    assert [record["loss"] for record in read_metrics(tmp_path)] == [1.0, 2.0, 3.0, 4.0]


def test_arithmetic_is_counted_forward_and_backward() -> None:
    layer, x = nn.Linear(64, 32, bias=False), torch.randn(10, 64, requires_grad=True)
    meter = FlopMeter()
    with meter.watch(1) as counter:
        layer(x).sum().backward()
    meter.note(counter, 10)
    assert meter.per_token == 3 * 2 * 64 * 32
    with meter.watch(7) as counter:
        assert counter is None
    meter.note(counter, 10)
    assert meter.per_token == 3 * 2 * 64 * 32


def test_a_step_that_may_make_a_pool_is_not_counted() -> None:
    """Of the order stage the first step and those at round numbers make trajectories before they train."""
    counted = []
    for step in range(1000):
        with FlopMeter(num_steps=1000).watch(step) as counter:
            counted += [step] if counter is not None else []
    assert counted == [1, 201, 401, 601, 801]
    with FlopMeter(num_steps=1).watch(0) as counter:
        assert counter is not None, "a run of one step has no other"


def test_the_peak_is_the_speed_of_a_product() -> None:
    assert 1e8 < measure_peak(torch.device("cpu"), torch.float32, seconds=0.1) < 1e15


def test_the_display_speaks_in_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=200, force_terminal=False)
    rates = {"steps_per_second": 2.5, "tokens_per_second": 12_345.0, "sequences_per_second": 20.0}
    with RunDisplay("run", 10, console) as display:
        display.show_step(1, 2.0, rates, 65.0, 0.25)
        display.show_step(2, 2.0, rates, 64.0, 0.25)  # too soon after the first
        display.say("[not markup]")
        display.show_step(10, 1.5, rates, 0.0, 0.25)
    with RunDisplay("run", 10, console, is_quiet=True) as display:
        display.show_step(1, 2.0, rates, 65.0, 0.25)
        display.say("nothing")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "run 1/10 · loss 2.0000 · 2.5 steps/s · 12.3k tokens/s · 20 sequences/s · MFU 25.0 % · 1m 05s left"
    )
    assert lines[1:] == [
        "[not markup]",
        lines[0].replace("1/10", "10/10").replace("2.0000", "1.5000").replace("1m 05s", "0s"),
    ]


def test_numbers_for_people() -> None:
    assert [format_seconds(s) for s in (0.4, 59, 61, 7500, math.inf)] == ["0s", "59s", "1m 01s", "2h 05m", "?"]
    assert [format_rate(v) for v in (0.1234, 34.56, 1234, 3_456_789)] == ["0.123", "34.6", "1.23k", "3.46M"]


def test_a_diverged_run_names_at_most_eight_samples() -> None:
    error = TrainingDiverged("the loss", seed=1, step=2, batch_ids=[f"s{k}" for k in range(11)])
    assert "s7 and 3 more" in str(error) and len(error.batch_ids) == 11
    assert "not given" in str(TrainingDiverged("the loss", seed=1, step=2, batch_ids=[]))


def test_an_objective_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ConfigError, match="objective nowhere cannot be used"):
        find_builder("nowhere")


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Writes beyond this size fail in the kernel, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class FullDisk(SlowLines):
    """From one step to another the disk takes no file of the size of a state."""

    def __init__(self, config: TrainConfig, first: int, last: int) -> None:
        super().__init__(config, 0.0)
        self._first, self._last = first, last

    def loss(self, model: nn.Module, batch: Any, step: int) -> LossOutput:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if step == self._first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        if step == self._last:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        return super().loss(model, batch, step)


def run_on_full_disk(out: Path, first: int, last: int, console: Console) -> None:
    config = small_config(checkpoint=CheckpointConfig(every_steps=2, every_seconds=3600))

    def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
        model, _, saver = build_tiny(config, device)
        return model, FullDisk(config, first, last), saver

    stage = Stage(name=config.objective, config=config, time_share=1.0)
    with file_size_limit(resource.getrlimit(resource.RLIMIT_FSIZE)[0]):
        run_plan([stage], RunOptions(out=out, device="cpu", with_report=False), console, lambda _: build)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_full_disk_at_the_end_leaves_the_state_before(tmp_path: Path) -> None:
    """Full from step 5 on: the save of step 6 is reported, that of step 8, the last one, raises; step 4 is whole."""
    console = Console(width=300, file=io.StringIO())
    with pytest.raises(CheckpointError, match=r"no space left to save into .*state.*previous state is intact"):
        run_on_full_disk(tmp_path / "out", 4, 99, console)
    assert "not saved at step 6: no space left" in said(console)
    state = tmp_path / "out/state"
    assert '"step": 4' in (state / "state.json").read_text()
    stored = load_file(state / "tensors/state.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in stored.values())
    assert not list(state.parent.glob(".state*"))
    # With room again, the run goes on from there.
    config = small_config(checkpoint=CheckpointConfig(every_steps=2, every_seconds=3600))
    stage = Stage(name=config.objective, config=config, time_share=1.0)
    options = RunOptions(out=tmp_path / "out", device="cpu", with_report=False, must_resume=True)
    assert run_plan([stage], options, Console(quiet=True), lambda _: build_tiny)[-1].step == 8


def test_a_disk_that_was_full_for_a_while_costs_nothing(tmp_path: Path) -> None:
    console = Console(width=300, file=io.StringIO())
    run_on_full_disk(tmp_path / "out", 2, 4, console)
    assert "not saved at step 4" in said(console)
    assert '"step": 8' in (tmp_path / "out/state/state.json").read_text()


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stage = Stage(name="mask_stage", config=small_config(), time_share=1.0)
    options = RunOptions(out=tmp_path / "file" / "out", device="cpu")
    with pytest.raises(ConfigError, match=r"--out .* cannot be used"):
        run_plan([stage], options, Console(quiet=True), lambda _: build_tiny)


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    stage = Stage(name="mask_stage", config=small_config(), time_share=1.0)
    for device, message in (("gpu", "--device is 'gpu'"), ("cuda:77", "CUDA|GPU")):
        with pytest.raises(ConfigError, match=message):
            run_plan([stage], RunOptions(out=tmp_path, device=device), Console(quiet=True), lambda _: build_tiny)
