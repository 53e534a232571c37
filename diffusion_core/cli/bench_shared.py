"""What the commands of `unmask bench` share: options, an engine in this process, and how results are written."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from diffusion_core.cli.options import Target
from diffusion_core.cli.output import open_console
from diffusion_core.config import EngineConfig
from diffusion_core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from diffusion_core.engine.runner import AsyncEngine

T = TypeVar("T")

OutFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="OUT", dir_okay=False, help="Write all figures and facts of the machine as JSON."),
]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", metavar="OUT.png", dir_okay=False, help="Draw the figures (matplotlib).")
]


def check_outputs(out: Path | None, plot: Path | None) -> None:
    """See that results can be written, before a measurement that takes minutes.

    Raises:
        ConfigError: the folder of ``out`` does not exist.
        ChartError: no picture can be made; the message says why.
    """
    from diffusion_core.eval.bench.charts import check_chart

    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--json {out}: the folder {out.parent} does not exist")
    if plot is not None:
        check_chart(plot)


def write_results(summary: dict[str, Any], tables: list[Table], out: Path | None, plot: Path | None) -> None:
    """Print the tables, and write the files that are wanted.

    Raises:
        ConfigError, ChartError: a file cannot be written.
    """
    from diffusion_core.eval.bench.charts import draw_chart

    console = open_console(stderr=False)
    for table in tables:
        console.print(table)
    if out is not None:
        try:
            out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--json {out}: cannot be written: {error.strerror}") from None
    if plot is not None:
        draw_chart(summary, plot)


def parse_numbers(option: str, text: str, least: int, most: int) -> list[int]:
    """Ascending, different whole numbers, separated by commas.

    Raises:
        typer.BadParameter: something else, or a number out of range.
    """
    try:
        numbers = sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < least or numbers[-1] > most:
        raise typer.BadParameter(f"{option} {text!r}: numbers from {least} to {most}, separated by commas")
    return numbers


def own_engine_config(target: Target) -> EngineConfig:
    """The configuration of an engine of one's own: the environment's, with the model that was named for both tasks."""
    engine = target.make_client_config().engine
    return replace(engine, model=target.model, edit_model=target.model) if target.model else engine


def run_own_engine(config: EngineConfig, work: Callable[[AsyncEngine], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` with an engine in this process; it is closed when this returns."""
    from diffusion_core.eval.bench.own_engine import open_own_engine

    async def main() -> T:
        async with open_own_engine(config) as engine:
            return await work(engine)

    return run_async(main)


def run_async(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a measurement; Ctrl-C ends it with exit code 130."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
