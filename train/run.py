"""A run from recipe to report: folder, resume, stages, time, and who builds model and objective.

::

    OUT/config.json     the configuration          OUT/metrics.jsonl   every step and evaluation
    OUT/state/          to go on from              OUT/checkpoint/     what the engine serves
    OUT/report.html     figures and curves         OUT/plots/*.png     the same curves as files
    OUT/run.json        device, versions, how it ended

A recipe of several stages has a folder for each of them, and ``OUT/checkpoint.txt`` names the last one's checkpoint.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import torch
from rich.console import Console
from torch import nn

from diffusion_core.checkpoints.atomic import write_file
from diffusion_core.errors import ConfigError, UnmaskError
from train import checkpoint
from train.config import TrainConfig
from train.deadline import REPORT_SECONDS, Deadline, StopRequest, catch_signals
from train.distributed import World, choose_device, join_world
from train.forward_times import load_denoiser, measure_forward_times, write_forward_times
from train.objective import Objective, Saver
from train.recipes import Stage
from train.settings import from_json, list_differences, to_json
from train.throughput import describe_device
from train.trainer import CHECKPOINT_FOLDER, STATE_FOLDER, Outcome, Trainer

CONFIG_FILE, RUN_FILE, LOCK_FILE, POINTER_FILE = "config.json", "run.json", ".lock", "checkpoint.txt"
FORWARD_TIMES_SECONDS = 15.0
MIN_STAGE_SECONDS = 2.0

# What may differ between a state and the run that goes on from it: it changes when something is written, not what.
FREE_FIELDS = ("budget.evaluate_every", "budget.log_every", "checkpoint.")

Builder = Callable[[TrainConfig, torch.device], tuple[nn.Module, Objective, Saver]]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how long: everything about a run that does not change what it computes.

    ``must_resume`` refuses to start anew. ``time_budget`` counts from ``started`` (a monotonic time), seconds. Without
    ``with_report``, figure 2b and the page are left for later.
    """

    out: Path
    must_resume: bool = False
    time_budget: float | None = None
    device: str = "auto"
    num_threads: int = 0
    with_report: bool = True
    started: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _Surroundings:
    """What all stages of a plan share."""

    options: RunOptions
    world: World
    stop: StopRequest
    console: Console
    find: Callable[[str], Builder]


def find_builder(objective: str) -> Builder:
    """The function ``build`` of ``train/objectives/<objective>.py``.

    Raises:
        ConfigError: this installation has no such objective, or a library that it needs is missing.
    """
    try:
        module = importlib.import_module(f"train.objectives.{objective}")
    except ImportError as error:
        raise ConfigError(f"objective {objective} cannot be used: {error}; is unmask[train] installed?") from None
    builder: Builder = module.build
    return builder


def run_plan(
    stages: list[Stage], options: RunOptions, console: Console, find: Callable[[str], Builder] = find_builder
) -> list[Outcome]:
    """Run the stages of a recipe one after the other; a stage that is done already is passed over.

    Raises:
        UnmaskError: what stopped the run, fit to show.
    """
    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    outcomes: list[Outcome] = []
    with join_world(options.device) as world, _hold_folder(options.out, world), catch_signals() as stop:
        surroundings = _Surroundings(options=options, world=world, stop=stop, console=console, find=find)
        previous: Path | None = None
        for number, stage in enumerate(stages):
            folder = _stage_folder(options.out, stages, number)
            config = stage.config
            if previous is not None:
                # The next stage goes on from what this one saved.
                config = replace(config, model=replace(config.model, base=str(previous / CHECKPOINT_FOLDER)))
            share = stage.time_share / sum(later.time_share for later in stages[number:])
            deadline = _stage_deadline(options, share)
            # Where a later stage begins follows from the folder, however that is written.
            free = FREE_FIELDS if previous is None else (*FREE_FIELDS, "model.base")
            if previous is not None and world.sum([float(deadline.left < MIN_STAGE_SECONDS)])[0]:
                console.print(f"no time is left for {stage.name}: run again to go on", style="yellow", markup=False)
                break
            is_over = number + 1 < len(stages) and _has_begun(_stage_folder(options.out, stages, number + 1))
            outcomes.append(_run_stage(config, free, folder, deadline, surroundings, is_over=is_over))
            previous = folder
            if world.is_main and len(stages) > 1:
                write_file(options.out / POINTER_FILE, f"{folder.name}/{CHECKPOINT_FOLDER}\n".encode())
            if stop:
                break
        if world.is_main and len(outcomes) > 1 and options.with_report and deadline.left > REPORT_SECONDS / 2:
            _report_all_stages(options.out, console)
    return outcomes


def _report_all_stages(out: Path, console: Console) -> None:
    from train.report import write_report

    console.print(f"report of all stages: {write_report(out)}", markup=False)


def _stage_folder(out: Path, stages: list[Stage], number: int) -> Path:
    return out if len(stages) == 1 else out / f"{number + 1}-{stages[number].name}"


def _has_begun(folder: Path) -> bool:
    """Whether a stage has saved anything; the one before it is then over, however many steps it had time for."""
    return (folder / STATE_FOLDER / checkpoint.STATE_FILE).exists()


def _stage_deadline(options: RunOptions, share: float) -> Deadline:
    """A stage's part of the time that is left; the last stage gets all of it."""
    started = options.started or time.monotonic()
    if options.time_budget is None:
        return Deadline()
    if share == 1.0:
        return Deadline(seconds=options.time_budget, start=started)
    return Deadline(seconds=share * (options.time_budget - (time.monotonic() - started)))


@contextmanager
def _hold_folder(out: Path, world: World) -> Iterator[None]:
    """Keep a second run out of the folder; the system frees it when this process dies."""
    lock = filelock.FileLock(out / LOCK_FILE)
    error: Exception | None = None
    if world.is_main:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except filelock.Timeout:
            error = ConfigError(f"another run is writing into {out}: wait for it, or choose another --out")
        except OSError as failure:
            error = ConfigError(f"--out {out} cannot be used: {failure.strerror}")
    world.agree(error)
    try:
        yield
    finally:
        lock.release()


def _run_stage(
    config: TrainConfig,
    free: tuple[str, ...],
    folder: Path,
    deadline: Deadline,
    surroundings: _Surroundings,
    *,
    is_over: bool,
) -> Outcome:
    world, console = surroundings.world, surroundings.console
    goes_on = _prepare_folder(config, folder, surroundings, free)
    done = checkpoint.read_state(folder / STATE_FOLDER).step if goes_on else 0
    if goes_on and (is_over or done >= config.budget.steps):
        if world.is_main:
            console.print(f"{folder} is finished: {done} steps", style="dim", markup=False)
        return Outcome(step=done, reason="done before", figures={})
    # Weights drawn at random by a builder are a function of the seed as well.
    torch.manual_seed(config.seed)
    model, objective, saver = surroundings.find(config.objective)(config, world.device)
    trainer = Trainer(
        config,
        model,
        objective,
        saver,
        folder,
        world=world,
        deadline=deadline,
        stop=surroundings.stop,
        console=console,
    )
    step = trainer.resume() if goes_on else 0
    if world.is_main:
        verb = f"goes on from step {step}" if goes_on else "starts"
        where = f"{describe_device(world.device)}" + (f" x {world.size}" if world.size > 1 else "")
        console.print(
            f"{config.recipe} {verb} on {where}: {trainer.num_trained / 1e6:.3g}M trained parameters, out {folder}",
            markup=False,
        )
    outcome = trainer.run()
    if world.is_main:
        _finish(folder, outcome, trainer, deadline, surroundings)
    world.barrier()
    return outcome


def _prepare_folder(config: TrainConfig, folder: Path, surroundings: _Surroundings, free: tuple[str, ...]) -> bool:
    """Make the run's folder; whether there is a state to go on from.

    Raises:
        ConfigError: the state is of another configuration (the differing fields are named), or there is none and
            ``must_resume`` asks for one.
    """
    world = surroundings.world
    error: Exception | None = None
    if world.is_main:
        try:
            _check_folder(config, folder, surroundings.options, free)
        except UnmaskError as failure:
            error = failure
    world.agree(error)
    return _has_begun(folder)


def _check_folder(config: TrainConfig, folder: Path, options: RunOptions, free: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.clear_drafts(folder / STATE_FOLDER)
    if not checkpoint.has_state(folder / STATE_FOLDER):
        if options.must_resume:
            raise ConfigError(f"--resume: there is no state in {folder}; leave --resume out to start anew")
        # Figures of a run that never saved anything would be taken for this one's.
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    else:
        before = checkpoint.read_state(folder / STATE_FOLDER).config
        if differing := list_differences(before, config, free):
            listed = "\n  ".join(differing)
            raise ConfigError(
                f"{folder} holds a run of another configuration; choose another --out, or set these back:\n  {listed}"
            )
    write_file(folder / CONFIG_FILE, (json.dumps(to_json(config), indent=1) + "\n").encode())


def _finish(folder: Path, outcome: Outcome, trainer: Trainer, deadline: Deadline, surroundings: _Surroundings) -> None:
    """Write how it ended, measure figure 2b where there is time, write the report, say where everything is."""
    world, console, config = surroundings.world, surroundings.console, trainer.config
    record = _describe_run(outcome, trainer, world)
    write_file(folder / RUN_FILE, (json.dumps(record, indent=1) + "\n").encode())
    where = f"{config.recipe} ended at step {outcome.step} ({outcome.reason}); checkpoint {folder / CHECKPOINT_FOLDER}"
    if not surroundings.options.with_report or deadline.left < REPORT_SECONDS / 2:
        console.print(f"{where}; for its report: unmask train report {folder}", markup=False)
        return
    limit = min(FORWARD_TIMES_SECONDS, 0.3 * (deadline.left - 3.0))
    if outcome.reason == "done" and limit > 1.0:
        try:
            _measure(config, folder, world.device, limit)
        except UnmaskError as error:
            console.print(f"forward times were not measured: {error}", style="yellow", markup=False)
    # matplotlib takes a second to import: only here, and only in the process that draws.
    from train.report import write_report

    page = write_report(folder)
    console.print(f"{where}, report {page}", markup=False)


def _measure(config: TrainConfig, folder: Path, device: torch.device, limit_seconds: float) -> None:
    denoiser = load_denoiser(folder / CHECKPOINT_FOLDER, config.model, device)
    write_forward_times(folder, measure_forward_times(denoiser, limit_seconds=limit_seconds), describe_device(device))


def measure_run(folder: Path, device_name: str) -> None:
    """Measure forward time over block size for a finished run and keep it in its folder.

    Raises:
        ConfigError: the folder holds no configuration, or the device is not there.
        CheckpointError: the run's checkpoint cannot be loaded.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / CONFIG_FILE} cannot be read: {error}") from None
    _measure(from_json(TrainConfig, values), folder, choose_device(device_name, 0), FORWARD_TIMES_SECONDS)


def _describe_run(outcome: Outcome, trainer: Trainer, world: World) -> dict[str, Any]:
    state = trainer.state
    return {
        "step": outcome.step,
        "reason": outcome.reason,
        "figures": outcome.figures,
        "device": describe_device(world.device),
        "num_processes": world.size,
        "torch": torch.__version__,
        "cpu_count": os.cpu_count(),
        "peak_flops_per_second": trainer.peak_flops,
        "peak_dtype": trainer.peak_dtype,
        "trained_parameters": trainer.num_trained,
        "seconds": state.seconds,
        "num_tokens": state.num_tokens,
        "num_sequences": state.num_sequences,
        "flops_per_token": state.flops_per_token,
        "mfu": trainer.utilisation(),
    }
