"""`unmask stats`: how useful suggestions were on this machine."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from diffusion_core.cli.output import open_console, write_json

_AGE = re.compile(r"(\d{1,4})([hdw])")
_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(stats)


def stats(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    since: Annotated[str, typer.Option(metavar="AGE", help="How far back: 12h, 7d, 4w; at most 90d are kept.")] = "30d",
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw charts into a PNG file (matplotlib).")] = None,
) -> None:
    """Show how many suggestions were taken and stayed, how long they took, and why others were not shown.

    The figures are of this machine and never leave it. They hold no code and no paths.
    """
    from lsp_server.stats.report import make_report
    from lsp_server.stats.store import Store, StoreError, default_path

    begin = time.time() - parse_age(since)
    store = Store(default_path())
    try:
        report = make_report(store, begin)
    except StoreError as error:
        open_console().print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    if plot is not None:
        from diffusion_core.pictures import ChartError
        from lsp_server.stats.charts import draw_charts

        try:
            draw_charts(report, plot)
        except ChartError as error:
            open_console().print(f"error: {error}", style="red", markup=False)
            raise typer.Exit(1) from None
    if as_json:
        write_json({**report.to_json(), "file": str(store.path)})
    else:
        from lsp_server.stats.tables import print_report

        print_report(report, since, open_console(stderr=False))
        if plot is not None:
            open_console().print(f"charts: {plot}", markup=False)


def parse_age(text: str) -> int:
    """An age such as 12h, 7d or 4w, in seconds."""
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"--since is {text!r}: allowed is a number with h, d or w, for instance 7d")
    return int(found[1]) * _SECONDS[found[2]]
