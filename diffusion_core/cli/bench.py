"""`unmask bench decode`: how fast policies decode the same prompts, measured in turns in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from diffusion_core.cli.evaluate import DataFile, Limit, Seed, show_progress
from diffusion_core.cli.options import (
    BlockSize,
    MaxTokens,
    Model,
    Target,
    TokenFile,
    Url,
    as_usage_error,
    run_with_client,
)
from diffusion_core.cli.output import open_console
from diffusion_core.requests import DecodingParams, EngineClient, Policy


def register(app: typer.Typer) -> None:
    """Add the group `bench`."""
    group = typer.Typer(no_args_is_help=True, help="Measure speed.")
    group.callback()(_describe)
    group.command()(decode)
    app.add_typer(group, name="bench")


def _describe() -> None:
    """Measure speed."""


def decode(
    ctx: typer.Context,
    *,
    data: DataFile,
    out: Annotated[Path | None, typer.Option("--json", metavar="OUT", dir_okay=False, help="Result file.")] = None,
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
    """Tokens per second, forwards per second, tokens per forward and latency for each policy.

    The prompts are the items of an infilling, completion or editing file. Each prompt is computed once, unmeasured;
    then the policies take turns on it, each first in turn, so that a noisy machine is noisy for all of them.
    """
    from diffusion_core.eval.bench import make_prompts, measure_policies, render_bench
    from diffusion_core.eval.dataset import read_dataset, sample_items

    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    decodings = parse_policies(policies, block_size)
    prompts = make_prompts(read_dataset(data), target.model, max_tokens, single_line=single_line)
    prompts = sample_items(prompts, limit, seed)
    with show_progress("bench decode") as (report, say):

        async def work(client: EngineClient) -> dict[str, Any]:
            say("bench decode")
            return await measure_policies(client, prompts, decodings, repeat, report)

        summary = run_with_client(target.make_client_config(), work)
    if out is not None:
        out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    open_console(stderr=False).print(render_bench(summary))


def parse_policies(text: str, block_size: int) -> list[DecodingParams]:
    """Decoding parameters for each policy named.

    Raises:
        typer.BadParameter: a name is unknown, or given twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [policy.value for policy in Policy]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"policy {name!r} is unknown: known are {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        raise typer.BadParameter("--policies names each policy once, separated by commas")
    with as_usage_error():
        return [DecodingParams(policy=Policy(name), block_size=block_size) for name in names]
