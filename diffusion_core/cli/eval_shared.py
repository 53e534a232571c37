"""What the commands of `unmask eval` share: options, progress, and running one benchmark into one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusion_core.cli.options import as_usage_error, run_with_client
from diffusion_core.cli.output import open_console
from diffusion_core.config import MIB, ClientConfig
from diffusion_core.errors import UnmaskError
from diffusion_core.requests import DecodingParams, EngineClient, SamplingParams

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
Samples = Annotated[int, typer.Option("--samples", min=1, help="Answers to each item, for pass@k.")]
EvalTemperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")]
TopP = Annotated[float, typer.Option("--top-p", help="Draw from the most probable tokens that reach this sum.")]
EvalSampleSeed = Annotated[int, typer.Option("--sample-seed", min=0, help="Seed of the samples' own seeds.")]


def sampled(benchmark: Benchmark, samples: int, temperature: float, top_p: float, seed: int) -> Benchmark:
    """The benchmark with the samples that the options ask for.

    Raises:
        typer.BadParameter: options that make no sense together.
    """
    from diffusion_core.eval.samples import sample_benchmark

    with as_usage_error():
        return sample_benchmark(benchmark, samples, SamplingParams(temperature=temperature, top_p=top_p, seed=seed))


def make_settings(benchmark: Benchmark, dataset: Dataset, model: str, decoding: DecodingParams) -> dict[str, Any]:
    """What makes two runs' items comparable; results of other settings are never mixed."""
    return {
        "benchmark": benchmark.name, "data_sha256": dataset.sha256, "model": model, "policy": decoding.policy.value,
        "block_size": decoding.block_size, **benchmark.settings,
    }  # fmt: skip


def make_run_options(workers: int, timeout_s: float, memory_mib: int, python: str) -> RunOptions:
    """How answers are scored."""
    from diffusion_core.eval.run import RunOptions
    from diffusion_core.eval.sandbox import Limits

    limits = Limits(wall_s=timeout_s, cpu_s=max(1, round(timeout_s)), memory_bytes=memory_mib * MIB)
    return RunOptions(workers=workers, limits=limits, python=python)


def evaluate(
    config: ClientConfig,
    benchmark: Benchmark,
    settings: dict[str, Any],
    options: RunOptions,
    out: Path | None,
    *,
    data_name: str,
    overwrite: bool,
) -> None:
    """Run the benchmark against the engine of ``config``, write ``out``, print the table."""
    from diffusion_core.eval.report import render_table

    with show_progress(benchmark.name) as (report, say):

        async def work(client: EngineClient) -> dict[str, Any]:
            say("waiting for the engine")
            evaluation = Evaluation(
                benchmark=benchmark, settings=settings, options=options, out=out, data_name=data_name,
                overwrite=overwrite,
            )  # fmt: skip
            return await evaluation.run(client, report, say)

        with explain_stop(out):
            summary = run_with_client(config, work)
    open_console(stderr=False).print(render_table(summary))


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One benchmark and the file of its results."""

    benchmark: Benchmark
    settings: dict[str, Any]
    options: RunOptions
    out: Path | None
    data_name: str
    overwrite: bool

    async def run(self, client: EngineClient, report: Report, say: Any) -> dict[str, Any]:
        """Ask, score and sum up what the file does not hold yet; returns the whole result.

        Raises:
            UnmaskError: the engine, the sandbox or the file failed; what was found is kept.
        """
        from diffusion_core.eval.ask import wait_ready
        from diffusion_core.eval.bench.machine import describe_machine
        from diffusion_core.eval.report import make_report
        from diffusion_core.eval.run import describe_conditions, run_benchmark
        from diffusion_core.eval.run_log import RunLog
        from diffusion_core.eval.store import ResultStore
        from diffusion_core.eval.tries import known_tasks

        health = await wait_ready(client)
        settings = {**self.settings, **describe_conditions(self.options), "dtype": health.dtype}
        store, log = ResultStore(self.out, settings), RunLog(self.out)
        try:
            store.open(overwrite=self.overwrite)
            store.check_covered({task.task_id for task in known_tasks(self.benchmark, store)})
            say(self.benchmark.name)
            log.begin(health, describe_machine(), sys.argv[1:])
            await run_benchmark(client, self.benchmark, store, self.options, report)
            summary = {**make_report(self.benchmark, store), "data": self.data_name}
            store.finish(summary)
            log.end(len(summary["items"]))
            return summary
        finally:
            store.close()


@contextmanager
def explain_stop(out: Path | None) -> Iterator[None]:
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
