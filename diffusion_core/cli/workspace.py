"""`unmask workspace`: users who share cached prompts."""

from __future__ import annotations

from typing import Annotated

import typer

from diffusion_core.cli.accounts import ConfigFile, DatabaseUrl, find_actor, open_store, show_moment
from diffusion_core.cli.options import JsonFlag
from diffusion_core.cli.output import open_console, write_json

Name = Annotated[str, typer.Argument(metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Add `workspace` and its commands."""
    commands = typer.Typer(
        help="Add and list workspaces. Members may reuse each other's cached prompts: put only those into one who may "
        "see each other's code. `unmask user set NAME --workspace WORKSPACE` moves a user.",
        no_args_is_help=True,
    )
    commands.command("add")(add)
    commands.command("list")(show)
    commands.command("remove")(remove)
    app.add_typer(commands, name="workspace")


def add(name: Name, as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """Add a workspace without members."""
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import as_json as fields

        made = accounts.add_workspace(name, actor=find_actor())
    if as_json:
        write_json(fields(made))
    else:
        open_console(stderr=False).print(f"Workspace {name} is added.", markup=False)


def show(as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """List the workspaces and their members."""
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import as_json as fields

        found = accounts.workspaces()
    if as_json:
        write_json({"workspaces": [fields(workspace) for workspace in found]})
        return
    from rich.table import Table

    table = Table("workspace", "since", "members")
    for workspace in found:
        table.add_row(workspace.name, show_moment(workspace.created_at), " ".join(workspace.members))
    open_console(stderr=False).print(table)


def remove(name: Name, as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """Remove a workspace. Its members stay, each with cached prompts of their own."""
    with open_store(database, config) as accounts:
        accounts.remove_workspace(name, actor=find_actor())
    if as_json:
        write_json({"removed": name})
    else:
        open_console(stderr=False).print(f"Workspace {name} is removed.", markup=False)
