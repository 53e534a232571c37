"""`unmask bench latency`: keystrokes and cold prompts over context lengths, and forward time over rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusion_core.cli.bench_shared import (
    OutFile,
    PlotFile,
    check_outputs,
    own_engine_config,
    parse_numbers,
    run_own_engine,
    write_results,
)
from diffusion_core.cli.eval_shared import show_progress
from diffusion_core.cli.options import Model, Target
from diffusion_core.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_core.engine.loaded_model import LoadedModel
    from diffusion_core.engine.runner import AsyncEngine

MAX_CONTEXT = 131_072
MAX_ROWS = 1024


def latency(
    ctx: typer.Context,
    *,
    out: OutFile = None,
    plot: PlotFile = None,
    contexts: Annotated[
        str, typer.Option("--contexts", metavar="A,B", help="Prompt lengths in tokens.")
    ] = "100,400,1000,3000",
    keys: Annotated[int, typer.Option("--keys", min=1, max=1000, help="Characters typed in a round.")] = 10,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds, each with a cold prompt.")] = 3,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Length of a suggestion.")] = 12,
    rows: Annotated[
        str, typer.Option("--rows", metavar="A,B", help="Rows of a forward (block sizes).")
    ] = "1,2,4,8,12,16,24,32,48,64",
    forward_context: Annotated[
        int, typer.Option("--forward-context", min=1, help="Cached tokens behind which forwards are timed.")
    ] = 400,
    forward_repeats: Annotated[
        int, typer.Option("--forward-repeats", min=1, help="Forwards for each number of rows.")
    ] = 20,
    source: Annotated[
        Path | None,
        typer.Option("--source", exists=True, dir_okay=False, help="Code to type into. Default: the engine's own."),
    ] = None,
    model: Model = "",
) -> None:
    """What a user waits for: warm keystrokes, cold prompts, and the time of a forward over its rows.

    The engine runs in this process, without a network between; UNMASK_ENGINE_* variables configure it.
    """
    from diffusion_core.eval.bench.latency import LatencyOptions, default_source, measure_contexts
    from diffusion_core.eval.bench.machine import describe_machine
    from diffusion_core.eval.bench.own_engine import describe_engine
    from diffusion_core.eval.bench.tables import render_contexts, render_forwards

    check_outputs(out, plot)
    row_numbers = parse_numbers("--rows", rows, 1, MAX_ROWS)
    options = LatencyOptions(
        contexts=parse_numbers("--contexts", contexts, 8, MAX_CONTEXT), rounds=rounds, num_keys=keys,
        num_tokens=max_tokens,
    )  # fmt: skip
    target = Target(model=model).over(ctx)
    if target.url:
        raise typer.BadParameter("bench latency measures an engine in its own process: --url is for decode and serve")
    config = own_engine_config(target)
    text = default_source() if source is None else _read_source(source)
    summary: dict[str, Any] = {"benchmark": "latency", "machine": describe_machine()}
    loaded: list[LoadedModel] = []

    with show_progress("bench latency") as (report, _):

        async def work(engine: AsyncEngine) -> None:
            health = await engine.health()
            summary.update(model=config.model, device=health.device, dtype=health.dtype, max_tokens=max_tokens)
            loaded.extend(found for found in engine.loaded_models() if found.name == config.model)
            summary["contexts"] = await measure_contexts(engine, config, text, options, report)
            summary["machine"]["engine"] = describe_engine(engine, health.device)

        run_own_engine(config, work)
    # The engine is closed: its thread touches the model no more.
    _measure_forwards(
        summary, loaded[0], text, rows=row_numbers, context=forward_context, repeats=forward_repeats
    )  # fmt: skip
    write_results(summary, [render_contexts(summary), render_forwards(summary)], out, plot)


def _measure_forwards(
    summary: dict[str, Any], model: LoadedModel, text: str, *, rows: list[int], context: int, repeats: int
) -> None:
    """Add ``forwards`` to the summary, and the bandwidth that its limits come from: the better of two measurements."""
    from diffusion_core.eval.bench.bandwidth import measure_bandwidth
    from diffusion_core.eval.bench.forwards import measure_forwards, summarize_forwards

    device = model.denoiser.model.device
    before = measure_bandwidth(device)
    times = measure_forwards(model, text, rows=rows, context=context, repeats=repeats)
    bandwidth = before.better(measure_bandwidth(device))
    summary["machine"]["bandwidth"] = bandwidth.fields()
    summary["forward_context"] = context
    summary["forwards"] = summarize_forwards(model, times, bandwidth)


def _read_source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--source {path}: cannot be read as UTF-8 text: {error}") from None
