"""`unmask eval infilling|editing`: measure a model on files of test items."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusion_core.cli.options import (
    BlockSize,
    MaxTokens,
    Model,
    PolicyOption,
    Target,
    TokenFile,
    Url,
    make_decoding,
    run_with_client,
)
from diffusion_core.cli.output import open_console
from diffusion_core.config import MIB, ClientConfig
from diffusion_core.errors import UnmaskError
from diffusion_core.requests import DecodingParams, EngineClient, Policy

if TYPE_CHECKING:
    from diffusion_core.eval.dataset import Dataset
    from diffusion_core.eval.run import Report, RunOptions
    from diffusion_core.eval.tasks import Benchmark

DataFile = Annotated[
    Path, typer.Option("--data", metavar="FILE", exists=True, dir_okay=False, help="Items, .jsonl or .jsonl.gz.")
]
OutFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="OUT", dir_okay=False, help="Result file; an unfinished run is taken up again."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many items of the file.")]
Seed = Annotated[int, typer.Option("--seed", help="Which items --limit draws.")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Sandboxes that run at a time.")]
TimeLimit = Annotated[float, typer.Option("--timeout", min=0.5, help="Seconds that a test may take.")]
MemoryLimit = Annotated[int, typer.Option("--memory-mib", min=64, help="Memory that a test may use.")]
Python = Annotated[str, typer.Option("--python", metavar="PATH", help="Interpreter for the tests, 3.11 or newer.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Drop what OUT holds.")]


class KindChoice(StrEnum):
    """Which instructions of an editing item are used."""

    DESCRIPTIVE = "descriptive"
    LAZY = "lazy"
    BOTH = "both"


def register(app: typer.Typer) -> None:
    """Add the group `eval`."""
    group = typer.Typer(no_args_is_help=True, help="Measure a model on files of test items.")
    group.command()(infilling)
    group.command()(editing)
    app.add_typer(group, name="eval")


def infilling(
    ctx: typer.Context,
    *,
    data: DataFile,
    out: OutFile = None,
    limit: Limit = None,
    seed: Seed = 0,
    policy: PolicyOption = Policy.AUTO,
    block_size: BlockSize = 0,
    max_tokens: MaxTokens = 0,
    single_line: Annotated[
        bool | None,
        typer.Option("--single-line/--multi-line", help="Count only the first line. Default: by the file's holes."),
    ] = None,
    stop_at_scope: Annotated[
        bool, typer.Option("--stop-at-scope/--no-stop-at-scope", help="End where the scope ends.")
    ] = True,
    workers: Workers = 1,
    timeout_s: TimeLimit = 10.0,
    memory_mib: MemoryLimit = 4096,
    python: Python = sys.executable,
    overwrite: Overwrite = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Fill holes in functions, run the functions' tests; pass@1, greedy."""
    from diffusion_core.eval.dataset import read_dataset
    from diffusion_core.eval.infilling import InfillingOptions, make_infilling

    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    dataset = read_dataset(data)
    options = InfillingOptions(
        model=target.model, decoding=make_decoding(policy, block_size), single_line=single_line,
        stop_at_scope=stop_at_scope, max_tokens=max_tokens,
    )  # fmt: skip
    benchmark = make_infilling(dataset, options, limit, seed)
    run_options = _run_options(workers, timeout_s, memory_mib, python)
    settings = _settings(benchmark, dataset, target.model, options.decoding)
    _evaluate(target.make_client_config(), benchmark, settings, run_options, out, overwrite=overwrite)


def editing(
    ctx: typer.Context,
    *,
    data: DataFile,
    out: OutFile = None,
    limit: Limit = None,
    seed: Seed = 0,
    kind: Annotated[KindChoice, typer.Option("--kind", help="Which instruction is given.")] = KindChoice.BOTH,
    policy: PolicyOption = Policy.AUTO,
    block_size: BlockSize = 0,
    max_tokens: MaxTokens = 0,
    workers: Workers = 1,
    timeout_s: TimeLimit = 30.0,
    memory_mib: MemoryLimit = 4096,
    python: Python = sys.executable,
    overwrite: Overwrite = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Change programs by an instruction, run their tests; pass@1, greedy.

    An item whose reference solution does not pass here (a missing library) counts as unsupported.
    """
    from diffusion_core.eval.dataset import read_dataset
    from diffusion_core.eval.editing import EditingOptions, InstructionKind, make_editing

    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    dataset = read_dataset(data)
    kinds = tuple(InstructionKind) if kind is KindChoice.BOTH else (InstructionKind(kind.value),)
    options = EditingOptions(
        model=target.model, decoding=make_decoding(policy, block_size), kinds=kinds, max_tokens=max_tokens
    )
    benchmark = make_editing(dataset, options, limit, seed)
    run_options = _run_options(workers, timeout_s, memory_mib, python)
    settings = _settings(benchmark, dataset, target.model, options.decoding)
    _evaluate(target.make_client_config(), benchmark, settings, run_options, out, overwrite=overwrite)


def _settings(benchmark: Benchmark, dataset: Dataset, model: str, decoding: DecodingParams) -> dict[str, Any]:
    """What makes two runs' items comparable; results of other settings are never mixed."""
    return {
        "benchmark": benchmark.name, "data_sha256": dataset.sha256, "model": model, "policy": decoding.policy.value,
        "block_size": decoding.block_size, **benchmark.settings,
    }  # fmt: skip


def _run_options(workers: int, timeout_s: float, memory_mib: int, python: str) -> RunOptions:
    from diffusion_core.eval.run import RunOptions
    from diffusion_core.eval.sandbox import Limits

    limits = Limits(wall_s=timeout_s, cpu_s=max(1, round(timeout_s)), memory_bytes=memory_mib * MIB)
    return RunOptions(workers=workers, limits=limits, python=python)


def _evaluate(
    config: ClientConfig,
    benchmark: Benchmark,
    settings: dict[str, Any],
    options: RunOptions,
    out: Path | None,
    *,
    overwrite: bool,
) -> None:
    from diffusion_core.eval.ask import wait_ready
    from diffusion_core.eval.report import make_report, render_table
    from diffusion_core.eval.run import describe_conditions, run_benchmark
    from diffusion_core.eval.store import ResultStore

    with show_progress(benchmark.name) as (report, say):

        async def work(client: EngineClient) -> dict[str, Any]:
            say("waiting for the engine")
            health = await wait_ready(client)
            store = ResultStore(out, {**settings, **describe_conditions(options), "dtype": health.dtype})
            try:
                store.open(overwrite=overwrite)
                store.check_covered({task.task_id for task in benchmark.tasks})
                say(benchmark.name)
                await run_benchmark(client, benchmark, store, options, report)
                summary = make_report(benchmark, store)
                store.finish(summary)
                return summary
            finally:
                store.close()

        with _explain_stop(out):
            summary = run_with_client(config, work)
    open_console(stderr=False).print(render_table(summary))


@contextmanager
def _explain_stop(out: Path | None) -> Iterator[None]:
    """Whoever sees a run stop should know that nothing is lost."""
    try:
        yield
    except (UnmaskError, typer.Exit):
        if out is not None and any(out.parent.glob(f"{out.name}.partial.jsonl")):
            hint = "The results so far are kept: the same command goes on from there."
            open_console().print(hint, style="yellow", markup=False)
        raise


@contextmanager
def show_progress(name: str) -> Iterator[tuple[Report, Any]]:
    """A progress bar on stderr; nothing where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = open_console()
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[passed]} passed"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None, passed=0)
        yield (
            lambda at: bar.update(task, completed=at.done, total=at.total, passed=at.passed),
            lambda text: bar.update(task, description=text),
        )
