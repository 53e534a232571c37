"""`unmask models`: what there is, what each needs and can do, and how one would be divided among GPUs."""

from __future__ import annotations

from typing import Annotated

import typer

from diffusion_core.cli import model_tables
from diffusion_core.cli.output import open_console, write_json


def register(app: typer.Typer) -> None:
    """Add `models`."""
    app.command()(models)


def models(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A model's name, hub repository, file or folder; none: all.")
    ] = "",
    *,
    plan: Annotated[bool, typer.Option("--plan", help="How NAME is divided among 1, 2 and 4 GPUs.")] = False,
    context: Annotated[
        int, typer.Option("--context", min=64, help="Tokens of the longest prompt and answer to keep room for.")
    ] = 8192,
    family: Annotated[
        str, typer.Option("--family", metavar="NAME", help="Family of a folder whose files do not show it.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Show models: size, licence, memory in each precision, what they can do, and what was verified here."""
    if plan and not name:
        raise typer.BadParameter("--plan needs the NAME of a model")
    from diffusion_core.checkpoints.describe import describe, describe_all

    console = open_console(stderr=False)
    if not name:
        found = describe_all()
        if as_json:
            write_json({"models": [model_tables.fields(each, context) for each in found]})
        else:
            console.print(model_tables.overview(found, context))
        return
    described = describe(name, family)
    if as_json:
        write_json(model_tables.fields(described, context, has_plan=plan))
        return
    console.print(model_tables.details(described, context))
    if plan:
        console.print(model_tables.plan_table(described, context))
