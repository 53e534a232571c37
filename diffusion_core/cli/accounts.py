"""What the commands about users share: where their database is, who acts, and how JSON and dates look."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffusion_core.cli.options import as_usage_error
from diffusion_core.cli.serve import merge_config, read_config_file
from diffusion_core.config import ServerConfig
from diffusion_core.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_core.accounts.store import Accounts

DatabaseUrl = Annotated[
    str, typer.Option("--database", metavar="URL", help="Default: $UNMASK_SERVER_DATABASE_URL, else the server's file.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", exists=True, dir_okay=False, help="The server's TOML file: its server.database_url."),
]


def find_database_url(database: str, config: Path | None) -> str:
    """The database of the server's settings: flag, environment, file; empty for the default one."""
    with as_usage_error():
        tables = read_config_file(config) if config else {}
        return merge_config(ServerConfig, "server", tables, database_url=database or None).database_url


@contextmanager
def open_store(database: str, config: Path | None) -> Iterator[Accounts]:
    """The accounts, for a command.

    Raises:
        ConfigError: their database cannot be used, or the packages for it are not installed.
    """
    url = find_database_url(database, config)
    try:
        from diffusion_core.accounts.open import open_accounts
    except ImportError as error:
        raise ConfigError(f"users need the package {error.name}: pip install 'unmask[team]'") from None
    with closing(open_accounts(url)) as accounts:
        yield accounts


def find_actor() -> str:
    """Who runs the command, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user without a name
        return "cli"


def show_moment(at: datetime | None, *, otherwise: str = "") -> str:
    """A time for a table: local, to the minute."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M") if at else otherwise
