"""`unmask pull`: a checkpoint into the cache, its licence named and accepted first where it restricts use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusion_core.cli.output import open_console, write_text
from diffusion_core.config import MIB

if TYPE_CHECKING:
    from diffusion_core.checkpoints.licence import LicenceTerms


_SERVED_BYTES = 50e6  # smaller models are served by torch (engine/device.py)


class SourceKind(StrEnum):
    """Where a checkpoint can come from."""

    HUB = "hub"
    INDEX = "index"
    PATH = "path"


def register(app: typer.Typer) -> None:
    """Add `pull`."""
    app.command()(pull)


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A model's name or hub repository (`unmask models` lists them).")
    ],
    source: Annotated[SourceKind | None, typer.Option("--source", help="Default: what can be reached.")] = None,
    path: Annotated[Path | None, typer.Option("--path", metavar="PATH", help="File or folder for `path`.")] = None,
    family: Annotated[
        str, typer.Option("--family", metavar="NAME", help="Family of a folder whose files do not show it.")
    ] = "auto",
    accept_licence: Annotated[
        str, typer.Option("--accept-licence", metavar="ID", help="Accept the licence of that name, if it asks for it.")
    ] = "",
) -> None:
    """Download and verify the checkpoint NAME.

    An interrupted download goes on where it stopped. The folder of the checkpoint is printed on stdout.
    """
    if path is not None and source is None:
        source = SourceKind.PATH
    if (path is not None) != (source is SourceKind.PATH):
        raise typer.BadParameter("--path goes with --source path, and only with it")
    from diffusion_core.checkpoints.pull import pull as pull_checkpoint

    show = _Progress(name)
    try:
        folder = pull_checkpoint(
            name, source=source.value if source else None, path=path, family=family, progress=show,
            accept_licence=accept_licence, ask=ask_licence,
        )  # fmt: skip
    except KeyboardInterrupt:
        show.close()
        open_console().print(f"stopped: `unmask pull {name}` goes on from here", style="yellow", markup=False)
        raise typer.Exit(130) from None
    finally:
        show.close()
    prepare_kernels(folder)
    write_text(f"{folder}\n")


def prepare_kernels(folder: Path) -> None:
    """Compile what the engine would compile at its start, for models that are large enough to be served by it."""
    from diffusion_core.kernels.library import advice, must_compile, why_no_kernels

    if sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < _SERVED_BYTES or not must_compile():
        return
    console = open_console()
    console.print("compiling kernels for this CPU, once", markup=False)
    why_no_kernels()
    if text := advice():
        console.print(text, style="yellow", markup=False)


class _Progress:
    """A progress display that begins with the first report: a question before it has the terminal to itself."""

    def __init__(self, name: str) -> None:
        self._display = show_progress(name)
        self._report: Callable[[int, int, str], None] | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        if self._report is None:
            self._report = self._display.__enter__()
        self._report(done, total, what)

    def close(self) -> None:
        """End the display, if it began."""
        if self._report is not None:
            self._display.__exit__(None, None, None)
            self._report = None


def ask_licence(name: str, terms: LicenceTerms) -> bool:
    """Name the licence, and on a terminal ask whether it is accepted; where nobody can answer it is not."""
    console = open_console()
    console.print(f"The weights of {name} come under {terms.text}: {terms.url}", style="yellow", markup=False)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm("Do you accept this licence?", default=False, err=True)


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
