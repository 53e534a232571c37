"""`unmask eval generation|exercism`: whole programs, and exercises with two tries."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

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
from diffusion_core.cli.options import BlockSize, Model, PolicyOption, Target, TokenFile, Url, make_decoding
from diffusion_core.eval import exercism as exercises
from diffusion_core.eval.generation import DEFAULT_MAX_TOKENS, Ask, FormatName
from diffusion_core.requests import MAX_TOKENS_LIMIT, Policy

LongestAnswer = Annotated[
    int, typer.Option("--max-tokens", min=1, max=MAX_TOKENS_LIMIT, help="Longest answer, in tokens.")
]


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group `eval`."""
    group.command()(generation)
    group.command()(exercism)


def generation(
    ctx: typer.Context,
    *,
    data: DataFile,
    out: OutFile = None,
    format_name: Annotated[FormatName, typer.Option("--format", help="Of the file.")] = FormatName.AUTO,
    ask: Annotated[
        Ask | None, typer.Option("--ask", help="Go on with a prompt, or follow words. Default: what is usual.")
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    policy: PolicyOption = Policy.AUTO,
    block_size: BlockSize = 0,
    max_tokens: LongestAnswer = DEFAULT_MAX_TOKENS,
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
    """Write programs, run their tests: HumanEval, MBPP, BigCodeBench, LiveCodeBench, MBXP, NaturalCodeBench.

    Items that this machine cannot run (no interpreter, no library) are counted apart, never as failed.
    """
    from diffusion_core.eval.dataset import read_dataset
    from diffusion_core.eval.formats import make_generation
    from diffusion_core.eval.generation import GenerationOptions

    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    dataset = read_dataset(data)
    options = GenerationOptions(
        model=target.model, decoding=make_decoding(policy, block_size), ask=ask, max_tokens=max_tokens
    )
    benchmark = make_generation(dataset, options, limit, seed, format_name)
    benchmark = sampled(benchmark, samples, temperature, top_p, sample_seed)
    run_options = make_run_options(workers, timeout_s, memory_mib, python)
    settings = make_settings(benchmark, dataset, target.model, options.decoding)
    config = target.make_client_config()
    evaluate(config, benchmark, settings, run_options, out, data_name=data.name, overwrite=overwrite)


def exercism(
    ctx: typer.Context,
    *,
    data: DataFile,
    out: OutFile = None,
    tries: Annotated[int, typer.Option("--tries", min=1, max=5, help="How often an exercise may be tried.")] = 2,
    limit: Limit = None,
    seed: Seed = 0,
    policy: PolicyOption = Policy.AUTO,
    block_size: BlockSize = 0,
    max_tokens: LongestAnswer = exercises.DEFAULT_MAX_TOKENS,
    samples: Samples = 1,
    temperature: EvalTemperature = 0.0,
    top_p: TopP = 1.0,
    sample_seed: EvalSampleSeed = 0,
    workers: Workers = 1,
    timeout_s: TimeLimit = 60.0,
    memory_mib: MemoryLimit = 4096,
    python: Python = sys.executable,
    overwrite: Overwrite = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Rewrite stubs by an exercise's instructions; who fails is shown the tests' output and may try again.

    Aider's edit benchmark in its `whole` format: passed after the first try, passed after the second.
    """
    from diffusion_core.eval.dataset import read_dataset

    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    dataset = read_dataset(data)
    options = exercises.ExercismOptions(
        model=target.model, decoding=make_decoding(policy, block_size), num_tries=tries, max_tokens=max_tokens
    )
    benchmark = sampled(
        exercises.make_exercism(dataset, options, limit, seed), samples, temperature, top_p, sample_seed
    )
    run_options = make_run_options(workers, timeout_s, memory_mib, python)
    settings = make_settings(benchmark, dataset, target.model, options.decoding)
    config = target.make_client_config()
    evaluate(config, benchmark, settings, run_options, out, data_name=data.name, overwrite=overwrite)
