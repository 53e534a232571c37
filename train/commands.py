"""Adds ``unmask train`` to the command line: one sub-command a recipe, and ``report``. No torch until one runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from train.recipes import RECIPES, Stage, on_cpu, plan

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field, e.g. optim.learning_rate=3e-4; repeatable."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Default: runs/RECIPE.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Insist on going on; a folder with a state of the same settings goes on anyway."),
]
TimeBudget = Annotated[
    str, typer.Option("--time-budget", metavar="TIME", help="Stop in time, with everything saved: 20m, 1h30m, 45s.")
]
OnCpu = Annotated[bool, typer.Option("--cpu", help="The recipe's settings for two CPU cores, on the CPU.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: torch's choice.")]
ShowSettings = Annotated[bool, typer.Option("--show-settings", help="Print every field with its value, and leave.")]


def register(app: typer.Typer) -> None:
    """Add the group ``train``."""
    group = typer.Typer(no_args_is_help=True, help="Train a model or a drafter, by recipe.")
    for recipe in RECIPES:
        summary = (inspect.getdoc(recipe) or "").partition("\n")[0]
        group.command(recipe.__name__, help=summary)(_make_command(recipe.__name__))
    group.command("report")(report)
    app.add_typer(group, name="train")


def _make_command(name: str) -> Callable[..., None]:
    def train(
        *,
        settings: Settings = None,
        out: Out = None,
        resume: Resume = False,
        time_budget: TimeBudget = "",
        cpu: OnCpu = False,
        device: Device = "auto",
        threads: Threads = 0,
        show_settings: ShowSettings = False,
    ) -> None:
        from diffusion_core.cli.options import as_usage_error
        from train.deadline import parse_duration

        with as_usage_error():
            stages = [_configure(stage, settings or [], cpu=cpu) for stage in plan(name)]
            seconds = parse_duration(time_budget) if time_budget else None
        if show_settings:
            _print_settings(stages)
            return
        _train(
            stages, out or Path("runs") / name, seconds, resume=resume, device="cpu" if cpu else device, threads=threads
        )

    return train


def _configure(stage: Stage, settings: list[str], *, cpu: bool) -> Stage:
    """The stage with the user's settings; ``STAGE:FIELD=VALUE`` is meant for that stage alone."""
    from diffusion_core.errors import ConfigError
    from train.config import OBJECTIVES
    from train.settings import apply_settings

    config = on_cpu(stage.config) if cpu else stage.config
    mine = []
    for setting in settings:
        target, separator, rest = setting.partition(":")
        if not separator or "=" in target:
            mine.append(setting)
        elif target not in OBJECTIVES:
            raise ConfigError(f"--set {setting}: there is no stage {target}: known are {', '.join(OBJECTIVES)}")
        elif target == stage.name:
            mine.append(rest)
    return replace(stage, config=apply_settings(config, mine))


def _print_settings(stages: list[Stage]) -> None:
    from diffusion_core.cli.output import write_text
    from train.settings import flatten

    for stage in stages:
        write_text(f"[{stage.name}]\n")
        for name, value in flatten(stage.config).items():
            write_text(f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}\n")


def _train(
    stages: list[Stage], out: Path, time_budget: float | None, *, resume: bool, device: str, threads: int
) -> None:
    import time

    # The budget counts from here: loading torch and a model are part of it.
    started = time.monotonic()
    from diffusion_core.cli.output import open_console
    from train.run import RunOptions, run_plan

    options = RunOptions(
        out=out, must_resume=resume, time_budget=time_budget, device=device, num_threads=threads, started=started
    )
    outcomes = run_plan(stages, options, open_console())
    if outcomes[-1].reason.startswith("SIG"):
        raise typer.Exit(130)


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The --out of a run.")],
    *,
    forward_times: Annotated[
        bool, typer.Option("--forward-times", help="Measure forward time over block size anew (figure 2b).")
    ] = False,
    device: Device = "auto",
) -> None:
    """Write the report of a run again: report.html and plots/*.png."""
    from diffusion_core.cli.output import write_text
    from train.report import find_runs, write_report

    if forward_times:
        from train.run import measure_run

        for run in find_runs(folder):
            measure_run(run, device)
    write_text(f"{write_report(folder)}\n")
