"""`unmask eval infilling|editing`, and the group of all evaluations."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from diffusion_core.cli import eval_generation, eval_report, eval_suite
from diffusion_core.cli.eval_shared import (
    DataFile,
    EvalSampleSeed,
    EvalTemperature,
    Limit,
    MemoryLimit,
    OutFile,
    Overwrite,
    Python,
    Samples,
    Seed,
    TimeLimit,
    TopP,
    Workers,
    evaluate,
    make_run_options,
    make_settings,
    sampled,
)
from diffusion_core.cli.options import BlockSize, MaxTokens, Model, PolicyOption, Target, TokenFile, Url, make_decoding
from diffusion_core.requests import Policy


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
    for part in (eval_generation, eval_suite, eval_report):
        part.add_to(group)
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
    samples: Samples = 1,
    temperature: EvalTemperature = 0.0,
    top_p: TopP = 1.0,
    sample_seed: EvalSampleSeed = 0,
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
    benchmark = sampled(benchmark, samples, temperature, top_p, sample_seed)
    run_options = make_run_options(workers, timeout_s, memory_mib, python)
    settings = make_settings(benchmark, dataset, target.model, options.decoding)
    config = target.make_client_config()
    evaluate(config, benchmark, settings, run_options, out, data_name=data.name, overwrite=overwrite)


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
    samples: Samples = 1,
    temperature: EvalTemperature = 0.0,
    top_p: TopP = 1.0,
    sample_seed: EvalSampleSeed = 0,
    workers: Workers = 1,
    timeout_s: TimeLimit = 30.0,
    memory_mib: MemoryLimit = 4096,
    python: Python = sys.executable,
    overwrite: Overwrite = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Change programs by an instruction, run their tests; pass@1, greedy unless samples are asked for.

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
    benchmark = sampled(benchmark, samples, temperature, top_p, sample_seed)
    run_options = make_run_options(workers, timeout_s, memory_mib, python)
    settings = make_settings(benchmark, dataset, target.model, options.decoding)
    config = target.make_client_config()
    evaluate(config, benchmark, settings, run_options, out, data_name=data.name, overwrite=overwrite)
