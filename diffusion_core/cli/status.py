"""`unmask status`: what the engine is doing. It never starts one."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer

from diffusion_core.cli.options import Model, Target, TokenFile, Url, run_with_client
from diffusion_core.cli.output import open_console, write_json
from diffusion_core.config import GIB, ClientConfig
from diffusion_core.decoding_report import DecodingReport
from diffusion_core.requests import Health, LoadSummary


def register(app: typer.Typer) -> None:
    """Add `status`."""
    app.command()(status)


def status(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Show the engine's state, models, device, latency, how it decodes, and notices.

    A local engine that is not running is reported as stopped, and stays so: the next request starts it. Exit code 1
    if the engine failed or a remote one cannot be reached.
    """
    config = Target(url=url, token_file=token_file, model=model).over(ctx).make_client_config()
    # It is asked once, and nobody answers for it: that is what the state is about.
    running = replace(config, fallback="none", max_attempts=1) if config.url else find_local_engine(config)
    if running is None:
        if as_json:
            write_json({"status": "stopped", "models": [], "notices": []})
        else:
            open_console(stderr=False).print("No local engine is running; the next request starts one.")
        return
    health = run_with_client(running, lambda client: client.health())
    if as_json:
        decoding = [{**asdict(each), "tokens_per_forward": each.tokens_per_forward} for each in health.decoding]
        write_json({**asdict(health), "decoding": decoding, "url": running.url})
    else:
        print_health(health, running.url)
    if health.status == "failed":
        raise typer.Exit(1)


def find_local_engine(config: ClientConfig) -> ClientConfig | None:
    """A running local engine as if it were a remote one; None when there is none.

    The one with the current settings is preferred; another one (of an editor with other settings) is better than
    nothing.
    """
    from diffusion_core.net.state_files import StateFiles, resolve_folders

    own = StateFiles.of(resolve_folders(config.engine))
    others = (StateFiles(path) for path in sorted(own.state.parent.glob("engine-*.json")) if path != own.state)
    for files in (own, *others):
        state = files.read_state()
        if state is not None and files.is_owned():
            local = f"http://127.0.0.1:{state.port}"
            return replace(config, url=local, token=state.token, token_file="", fallback="none", max_attempts=1)
    return None


def print_health(health: Health, url: str) -> None:
    """The engine's state for people, on stdout."""
    from rich.table import Table

    console = open_console(stderr=False)
    style = {"ready": "green", "loading": "yellow"}.get(health.status, "red")
    console.print(f"Engine [{style}]{health.status}[/] at {url}, version {health.version or '?'}")
    table = Table("model", "task", "state", "memory", "")
    for model in health.models:
        memory = f"{model.memory_bytes / GIB:.2f} GiB" if model.memory_bytes else ""
        table.add_row(model.name, model.task, model.state, memory, model.detail)
    if health.models:
        console.print(table)
    if health.device:
        console.print(f"device {health.device}, {health.dtype}; memory {health.memory_bytes / GIB:.2f} GiB")
    console.print(
        f"{health.num_completed} requests done, {health.num_active} under way, {health.num_forwards} forwards; "
        f"latency p50 {health.latency_p50_ms:.0f} ms, p95 {health.latency_p95_ms:.0f} ms; "
        f"up {health.uptime_ms / 60_000:.0f} min"
    )
    if health.load is not None:
        print_load(health.load)
    for report in health.decoding:
        print_decoding(report)
    for notice in health.notices:
        console.print(notice, style="yellow", markup=False)


def print_load(load: LoadSummary) -> None:
    """What the server's users make it do."""
    open_console(stderr=False).print(
        f"load: {load.num_active} active, {load.num_queued} waiting; in the last {load.window_s:.0f} s "
        f"{load.requests_per_s:.1f} requests/s, p50 {load.latency_p50_ms:.0f} ms, p95 {load.latency_p95_ms:.0f} ms, "
        f"{load.tokens_per_s:.0f} tokens/s at {load.tokens_per_forward:.2f} per forward, "
        f"{load.cache_hit_rate:.0%} of prompt tokens reused"
    )


def print_decoding(report: DecodingReport) -> None:
    """How a model decodes: what its forwards cost by rows, where its drafts come from and how far they are right."""
    from rich.table import Table

    console = open_console(stderr=False)
    shapes = {"": "", "none": "; its slots do not pay"}
    shape = shapes.get(report.round_shape, f"; {report.block_size} slots, {report.round_shape}")
    console.print(
        f"{report.model}: {report.tokens_per_forward:.2f} tokens per forward ({report.num_tokens} in "
        f"{report.num_rounds}), {report.num_threads} threads{', compiled kernels' if report.native else ''}{shape}",
        markup=False,
    )
    if report.costs:
        table = Table("rows", *(str(cost.rows) for cost in report.costs), title="milliseconds per forward, measured")
        if not any(cost.head_ms for cost in report.costs):  # captured rounds, which take the time of their size
            table.add_row("round, head included", *(f"{cost.body_ms:.2f}" for cost in report.costs))
            console.print(table)
        else:
            table.add_row("layers", *(f"{cost.body_ms:.1f}" for cost in report.costs))
            table.add_row("output head", *(f"{cost.head_ms:.1f}" for cost in report.costs))
            if any(cost.slots_ms for cost in report.costs):
                table.add_row("more for slots", *(f"{cost.slots_ms:.1f}" for cost in report.costs))
            console.print(table)
            console.print(f"at present a forward takes {report.pace:.2f} times as long")
    else:
        console.print("its forwards are not measured yet: rounds follow fixed rules")
    if report.drafts:
        table = Table("drafts of", "verified", "tokens", "accepted", "right at the 1st, 2nd, ... token")
        for draft in report.drafts:
            rates = " ".join(f"{rate:.2f}" for rate in draft.acceptance)
            counts = (draft.num_drafts, draft.num_drafted, draft.num_accepted)
            table.add_row(draft.source, *map(str, counts), rates)
        console.print(table)
