"""`unmask bench serve`: throughput and latency of an engine server over the number of concurrent users."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusion_core.cli.bench_shared import (
    OutFile,
    PlotFile,
    check_outputs,
    own_engine_config,
    parse_numbers,
    run_async,
    write_results,
)
from diffusion_core.cli.eval_shared import DataFile, Limit, Seed, show_progress
from diffusion_core.cli.options import MaxTokens, Model, Target, TokenFile, Url
from diffusion_core.config import ClientConfig
from diffusion_core.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusion_core.eval.bench.prompts import Prompt
    from diffusion_core.eval.bench.serve import Level
    from diffusion_core.eval.run import Report
    from diffusion_core.net.client import HttpEngineClient
    from diffusion_core.requests import Health

MAX_USERS = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured. ``first_answer_ms`` is known of a server that was started for the measurement."""

    health: Health
    levels: list[Level]
    first_answer_ms: float | None = None


def serve(
    ctx: typer.Context,
    *,
    data: DataFile,
    out: OutFile = None,
    plot: PlotFile = None,
    users: Annotated[str, typer.Option("--users", metavar="A,B", help="Numbers of concurrent users.")] = "1,2,4,8",
    requests: Annotated[int, typer.Option("--requests", min=1, max=10_000, help="Requests of each user.")] = 4,
    limit: Limit = None,
    seed: Seed = 0,
    max_tokens: MaxTokens = 0,
    single_line: Annotated[bool, typer.Option("--single-line", help="Stop at the end of the line.")] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Also load a server that is not on this machine.")
    ] = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Throughput and latency over concurrent users; each sends its next request when the answer is there.

    A server process is started on this machine for the measurement, configured by UNMASK_ENGINE_* variables. With
    --url a running one is loaded instead. Requests that fail are counted by kind, and not sent again.
    """
    from diffusion_core.eval.bench.machine import describe_machine
    from diffusion_core.eval.bench.prompts import make_prompts
    from diffusion_core.eval.bench.serve import iterate_models, summarize_level
    from diffusion_core.eval.bench.tables import render_serve
    from diffusion_core.eval.dataset import read_dataset, sample_items

    check_outputs(out, plot)
    numbers = parse_numbers("--users", users, 1, MAX_USERS)
    target = Target(url=url, token_file=token_file, model=model).over(ctx)
    config = target.make_client_config()
    check_is_near(config.url, allow_remote=allow_remote)
    prompts = make_prompts(read_dataset(data), target.model, max_tokens, single_line=single_line)
    prompts = sample_items(prompts, limit, seed)
    machine = describe_machine()
    with show_progress("bench serve") as (report, _):
        if config.url:
            found = run_async(lambda: _load_running(config, prompts, numbers, requests, report))
        else:
            own = replace(config, engine=own_engine_config(target))
            found = run_async(lambda: _load_own(own, prompts, numbers, requests, report))
    health, levels = found.health, found.levels
    summary: dict[str, Any] = {
        "benchmark": "serve",
        "machine": machine,
        "n": len(prompts),
        "model": ", ".join(sorted(set(iterate_models(levels)))),
        "device": health.device,
        "dtype": health.dtype,
        "own_server": not config.url,
        "start_to_first_answer_ms": found.first_answer_ms,
        "requests_per_user": requests,
        "levels": [summarize_level(level) for level in levels],
    }
    write_results(summary, [render_serve(summary)], out, plot)
    if not any(level.answers for level in levels):
        errors = json.dumps({level.users: dict(level.errors) for level in levels})
        raise EngineError(f"no request was answered: {errors}")


def check_is_near(url: str, *, allow_remote: bool) -> None:
    """Refuse to load another machine's server by accident.

    Raises:
        ConfigError: the address is not of this machine, or none at all.
    """
    from urllib.parse import urlsplit

    from diffusion_core.net.client import is_loopback

    if not url or allow_remote:
        return
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    if not host:
        raise ConfigError(f"--url {url}: must look like http://host:port")
    if not is_loopback(host):
        raise ConfigError(f"--url {url} is not on this machine: --allow-remote loads it all the same")


async def _load_running(
    config: ClientConfig, prompts: list[Prompt], users: list[int], requests: int, report: Report
) -> Found:
    from diffusion_core.net.auth import resolve_client_token
    from diffusion_core.net.client import HttpEngineClient

    token = resolve_client_token(config)

    def connect() -> HttpEngineClient:
        return HttpEngineClient(
            config.url, token, ca_file=config.ca_file, cert_file=config.cert_file, key_file=config.key_file,
            proxy=config.proxy, connect_timeout_s=config.connect_timeout_s,
            request_timeout_s=config.request_timeout_s,
        )  # fmt: skip

    return await _load(connect, prompts, users, requests, report)


async def _load_own(
    config: ClientConfig, prompts: list[Prompt], users: list[int], requests: int, report: Report
) -> Found:
    from diffusion_core.eval.bench.own_server import run_own_server
    from diffusion_core.net.client import HttpEngineClient
    from diffusion_core.net.state_files import resolve_model

    # The server runs in another folder and knows its model by the absolute path.
    prompts = [replace(prompt, model=resolve_model(prompt.model)) if prompt.model else prompt for prompt in prompts]
    async with run_own_server(config.engine, config.engine_start_timeout_s) as server:
        found = await _load(
            lambda: HttpEngineClient(server.url, server.token, request_timeout_s=config.request_timeout_s),
            prompts, users, requests, report,
        )  # fmt: skip
        return replace(found, first_answer_ms=round(server.first_answer_ms, 1))


async def _load(
    connect: Callable[[], HttpEngineClient], prompts: list[Prompt], users: list[int], requests: int, report: Report
) -> Found:
    """Wait for the model, make one unmeasured request, then load the server."""
    from diffusion_core.eval.ask import ask, wait_ready
    from diffusion_core.eval.bench.serve import measure_levels
    from diffusion_core.requests import new_request_id

    client = connect()
    try:
        health = await wait_ready(client)
        # The last prompt is the last to be measured; whatever is built on first use is built here.
        await ask(client, lambda: replace(prompts[-1], id=new_request_id(), max_tokens=1))
    finally:
        await client.aclose()
    return Found(health, await measure_levels(connect, prompts, users, requests, report))
