"""`unmask eval report`: result files as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffusion_core.cli.output import open_console


def add_to(group: typer.Typer) -> None:
    """Add the command to the group `eval`."""
    group.command()(report)


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", exists=True, help="Result files, or folders that hold them.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", dir_okay=False, help="The page, .html.")],
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Evaluation",
) -> None:
    """Write one HTML page with tables and plots of results, beside the figures that the paper reports.

    The page needs no network. Needs matplotlib and jinja2: pip install 'unmask[train]'.
    """
    from diffusion_core.eval.page.render import write_page

    written = write_page(runs, out, title)
    console = open_console()
    for note in written.notes:
        console.print(note, style="yellow", markup=False)
    console.print(f"{out}: {written.num_runs} results", markup=False)
