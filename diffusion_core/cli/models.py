"""`unmask pull` and `unmask models`: checkpoints that have a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from diffusion_core.cli.output import open_console, write_json, write_text
from diffusion_core.config import GIB, MIB


class SourceKind(StrEnum):
    """Where a checkpoint can come from."""

    HUB = "hub"
    INDEX = "index"
    PATH = "path"


def register(app: typer.Typer) -> None:
    """Add `pull` and `models`."""
    app.command()(pull)
    app.command()(models)


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name (`unmask models` lists them).")],
    source: Annotated[SourceKind | None, typer.Option("--source", help="Default: what can be reached.")] = None,
    path: Annotated[Path | None, typer.Option("--path", metavar="PATH", help="File or folder for `path`.")] = None,
) -> None:
    """Download and verify the checkpoint NAME.

    An interrupted download goes on where it stopped. The folder of the checkpoint is printed on stdout.
    """
    if path is not None and source is None:
        source = SourceKind.PATH
    if (path is not None) != (source is SourceKind.PATH):
        raise typer.BadParameter("--path goes with --source path, and only with it")
    from diffusion_core.checkpoints.pull import pull as pull_checkpoint

    try:
        with show_progress(name) as progress:
            folder = pull_checkpoint(name, source=source.value if source else None, path=path, progress=progress)
    except KeyboardInterrupt:
        open_console().print(f"stopped: `unmask pull {name}` goes on from here", style="yellow", markup=False)
        raise typer.Exit(130) from None
    write_text(f"{folder}\n")


@contextmanager
def show_progress(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr; on a file or a pipe, one line for each new kind of work."""
    console = open_console()
    if not console.is_terminal:
        last: list[str] = []

        def report_line(done: int, total: int, what: str) -> None:
            if last[-1:] != [what]:
                last.append(what)
                size = f" ({total / MIB:.0f} MiB)" if total else ""
                console.print(f"{name}: {what}{size}", markup=False)

        yield report_line
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total or None, description=f"{name}: {what}"
        )


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """List the models that have a name, and which of them are downloaded."""
    from diffusion_core.checkpoints.registry import registry
    from diffusion_core.checkpoints.store import downloaded_names, is_downloaded

    known: list[dict[str, Any]] = [
        {
            "name": entry.name, "task": entry.task, "parameters": entry.parameters, "size_bytes": entry.size_bytes,
            "licence": entry.licence, "sources": list(entry.sources), "downloaded": is_downloaded(entry.name),
            "title": entry.title, "homepage": entry.homepage,
        }
        for entry in registry().values()
    ]  # fmt: skip
    own: list[dict[str, Any]] = [
        {"name": name, "task": "", "parameters": "", "size_bytes": _folder_size(name), "licence": "", "sources": [],
         "downloaded": is_downloaded(name), "title": "pulled from a path", "homepage": ""}
        for name in downloaded_names() if name not in registry()
    ]  # fmt: skip
    if as_json:
        write_json({"models": known + own})
    else:
        _print_models(known + own)


def _folder_size(name: str) -> int | None:
    from diffusion_core.checkpoints.store import checkpoint_folder, read_receipt
    from diffusion_core.errors import CheckpointError

    try:
        return read_receipt(checkpoint_folder(name)).size_bytes
    except CheckpointError:
        return None


def _print_models(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(caption="`unmask pull NAME` downloads one")
    for heading in ("name", "task", "size", "licence", "downloaded", "sources"):
        table.add_column(heading, no_wrap=heading != "sources")
    for row in rows:
        size = f"{row['size_bytes'] / GIB:.2f} GiB" if row["size_bytes"] else "?"
        here = "[green]yes[/]" if row["downloaded"] else "no"
        table.add_row(row["name"], row["task"], size, row["licence"], here, ", ".join(row["sources"]))
    open_console(stderr=False).print(table)
