"""`unmask bench`: the group, and `decode`, which measures policies on the same prompts in turns in one run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from diffusion_core.cli import bench_latency, bench_serve
from diffusion_core.cli.bench_shared import (
    OutFile,
    PlotFile,
    check_outputs,
    own_engine_config,
    run_own_engine,
    write_results,
)
from diffusion_core.cli.eval_shared import DataFile, Limit, Seed, show_progress
from diffusion_core.cli.options import (
    BlockSize,
    MaxTokens,
    Model,
    Target,
    TokenFile,
    Url,
    parse_policies,
    run_with_client,
)
from diffusion_core.requests import EngineClient


def register(app: typer.Typer) -> None:
    """Add the group `bench`."""
    group = typer.Typer(no_args_is_help=True, help="Measure speed.")
    group.command()(decode)
    group.command()(bench_latency.latency)
    group.command()(bench_serve.serve)
    app.add_typer(group, name="bench")


def decode(
    ctx: typer.Context,
    *,
    data: DataFile,
    out: OutFile = None,
    plot: PlotFile = None,
    limit: Limit = None,
    seed: Seed = 0,
    policies: Annotated[
        str, typer.Option("--policies", metavar="A,B", help="Policies, separated by commas.")
    ] = "autoregressive,verified",
    block_size: BlockSize = 0,
    max_tokens: MaxTokens = 0,
    single_line: Annotated[bool, typer.Option("--single-line", help="Stop at the end of the line.")] = False,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Rounds over all prompts.")] = 1,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Tokens/s, forwards/s, tokens per forward, time of a forward beside the memory's limit, and latency, by policy.

    The prompts are the items of an infilling, completion or editing file. Each prompt is computed once, unmeasured;
    then the policies take turns on it, each first in turn, so that a noisy machine is noisy for all of them.
    The engine runs in this process, configured by UNMASK_ENGINE_* variables. With --url a running one is measured;
    its memory's limit is not known then.
    """
    from diffusion_core.eval.bench.decode import measure_policies
    from diffusion_core.eval.bench.prompts import make_prompts
    from diffusion_core.eval.bench.tables import render_decode
    from diffusion_core.eval.dataset import read_dataset, sample_items

    check_outputs(out, plot)
    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    config = target.make_client_config()
    decodings = parse_policies(policies, block_size)
    prompts = make_prompts(read_dataset(data), target.model, max_tokens, single_line=single_line)
    prompts = sample_items(prompts, limit, seed)
    with show_progress("bench decode") as (report, _):
        if config.url:

            async def measure_remote(client: EngineClient) -> dict[str, Any]:
                return await measure_policies(client, prompts, decodings, repeat, report)

            summary = run_with_client(config, measure_remote)
        else:
            summary = run_own_engine(
                own_engine_config(target),
                lambda engine: measure_policies(engine, prompts, decodings, repeat, report, own=engine),
            )
    write_results(summary, [render_decode(summary)], out, plot)
