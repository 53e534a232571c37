"""`unmask eval suite`: every set of a folder, one after the other, with one engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffusion_core.cli.eval_shared import (
    Evaluation,
    Limit,
    MemoryLimit,
    Overwrite,
    Python,
    Seed,
    Workers,
    explain_stop,
    make_run_options,
    make_settings,
    show_progress,
)
from diffusion_core.cli.options import BlockSize, Model, Target, TokenFile, Url, parse_policies, run_with_client
from diffusion_core.cli.output import open_console
from diffusion_core.requests import EngineClient


def add_to(group: typer.Typer) -> None:
    """Add the command to the group `eval`."""
    group.command()(suite)


def suite(
    ctx: typer.Context,
    *,
    data: Annotated[
        Path, typer.Option("--data", metavar="FOLDER", exists=True, file_okay=False, help="Where the sets' files are.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", file_okay=False, help="For SET.POLICY.json files.")],
    sets: Annotated[str, typer.Option("--sets", metavar="A,B", help="Only these sets.")] = "",
    policies: Annotated[str, typer.Option("--policies", metavar="A,B", help="One after the other.")] = "auto",
    block_size: BlockSize = 0,
    limit: Limit = None,
    seed: Seed = 0,
    workers: Workers = 1,
    memory_mib: MemoryLimit = 4096,
    python: Python = sys.executable,
    overwrite: Overwrite = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Run all sets that the folder has, the cheapest first; stopped at any point, the same command goes on.

    HumanEval with its three infillings, MBPP, CanItEdit and Exercism; `unmask eval report FOLDER` shows them.
    """
    from diffusion_core.eval.report import render_table
    from diffusion_core.eval.suite import find_sets

    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    found = find_sets(data, tuple(name.strip() for name in sets.split(",") if name.strip()))
    decodings = parse_policies(policies, block_size)
    parts = [(entry, dataset, decoding) for decoding in decodings for entry, dataset in found]
    out.mkdir(parents=True, exist_ok=True)
    console = open_console(stderr=False)

    async def work(client: EngineClient) -> None:
        for entry, dataset, decoding in parts:
            file = out / f"{entry.name}.{decoding.policy.value}.json"
            benchmark = entry.make(dataset, target.model, decoding, limit, seed)
            evaluation = Evaluation(
                benchmark=benchmark,
                settings=make_settings(benchmark, dataset, target.model, decoding),
                options=make_run_options(workers, entry.timeout_s, memory_mib, python),
                out=file,
                data_name=dataset.name,
                overwrite=overwrite,
            )
            with explain_stop(file), show_progress(entry.name) as (report, say):
                summary = await evaluation.run(client, report, say)
            console.print(render_table({**summary, "benchmark": entry.name}))

    run_with_client(target.make_client_config(), work)
