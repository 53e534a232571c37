"""`unmask audit`: what administrators did; `unmask database`: the shape of the accounts' database."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Annotated

import typer

from diffusion_core.cli.accounts import ConfigFile, DatabaseUrl, find_database_url, open_store, show_moment
from diffusion_core.cli.options import JsonFlag
from diffusion_core.cli.output import open_console, write_json
from diffusion_core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add `audit` and `database`."""
    app.command("audit")(audit)
    commands = typer.Typer(help="The database of a server's users.", no_args_is_help=True)
    commands.callback()(lambda: None)  # a group, though it has one command
    commands.command("upgrade")(upgrade)
    app.add_typer(commands, name="database")


def audit(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many entries.")] = 50,
    as_json: JsonFlag = False,
    database: DatabaseUrl = "",
    config: ConfigFile = None,
) -> None:
    """Show who changed users, tokens and limits, the newest first."""
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import as_json as fields

        entries = accounts.audit(limit)
    if as_json:
        write_json({"audit": [fields(entry) for entry in entries]})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("when", "who", "what", "whom", "")
    for entry in entries:
        detail = " ".join(f"{name}={json.dumps(value)}" for name, value in entry.detail.items())
        table.add_row(*map(escape, (show_moment(entry.at), entry.actor, entry.action, entry.target, detail)))
    open_console(stderr=False).print(table)


def upgrade(as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """Bring the database to this version's shape; `unmask serve` does so at its start. Make a backup first."""
    url = find_database_url(database, config)
    try:
        from diffusion_core.accounts.database import Database
        from diffusion_core.accounts.migrate import upgrade as migrate
    except ImportError as error:
        raise ConfigError(f"users need the package {error.name}: pip install 'unmask[team]'") from None
    with closing(Database(url)) as opened:
        before, after = migrate(opened)
        described = opened.describe()
    if as_json:
        write_json({"database": described, "before": before, "after": after})
    elif before == after:
        open_console(stderr=False).print(f"{described} is of revision {after} already.", markup=False)
    else:
        was = f"from revision {before}" if before else "from nothing"
        open_console(stderr=False).print(f"{described} went {was} to {after}.", markup=False)
