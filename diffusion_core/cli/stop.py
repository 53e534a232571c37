"""`unmask stop`: stop the local engines. The next request starts one again."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from diffusion_core.cli.options import Target
from diffusion_core.cli.output import open_console, write_json
from diffusion_core.config import ClientConfig


def register(app: typer.Typer) -> None:
    """Add `stop`."""
    app.command()(stop)


def stop(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Stop the local engines of this user, whatever their settings, and free their memory.

    Editors go on: the next request starts an engine. A remote engine is not touched.
    """
    num_stopped = asyncio.run(stop_local_engines(Target().over(ctx).make_client_config()))
    if as_json:
        write_json({"stopped": num_stopped})
    elif num_stopped:
        open_console(stderr=False).print(f"Stopped {num_stopped} engine{'s' if num_stopped > 1 else ''}.")
    else:
        open_console(stderr=False).print("No local engine was running.")


async def stop_local_engines(config: ClientConfig) -> int:
    """Stop every running engine in the state folder; how many there were."""
    from diffusion_core.net.rendezvous import Rendezvous
    from diffusion_core.net.state_files import StateFiles, resolve_folders

    folder = StateFiles.of(resolve_folders(config.engine)).state.parent
    all_files = [StateFiles(path) for path in sorted(folder.glob("engine-*.json")) if ".failed" not in path.suffixes]
    return sum([await Rendezvous(config, files, ()).stop() for files in all_files])
