"""`unmask user`: who may use a shared server, and how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from diffusion_core.cli.accounts import ConfigFile, DatabaseUrl, find_actor, open_store, show_moment
from diffusion_core.cli.options import JsonFlag, as_usage_error
from diffusion_core.cli.output import open_console, write_json
from diffusion_core.errors import InvalidRequest

if TYPE_CHECKING:
    from diffusion_core.accounts.records import Keep, User, UserChanges

Name = Annotated[str, typer.Argument(metavar="NAME")]
PerMinute = Annotated[
    str, typer.Option("--requests-per-minute", metavar="N", help="0: no limit. default: the server's limit.")
]
AtOnce = Annotated[
    str, typer.Option("--requests-at-once", metavar="N", help="0: no limit. default: the server's limit.")
]
MaxBytes = Annotated[
    str, typer.Option("--max-request-bytes", metavar="N", help="Largest request. default: the server's limit.")
]
Workspace = Annotated[str, typer.Option("--workspace", metavar="NAME", help="Whose cached prompts are shared.")]


def register(app: typer.Typer) -> None:
    """Add `user` and its commands."""
    commands = typer.Typer(help="Add, list and limit the users of a server.", no_args_is_help=True)
    commands.command("add")(add)
    commands.command("list")(show)
    commands.command("set")(change)
    commands.command("disable")(disable)
    commands.command("enable")(enable)
    commands.command("remove")(remove)
    app.add_typer(commands, name="user")


def add(
    name: Name,
    *,
    requests_per_minute: PerMinute = "",
    requests_at_once: AtOnce = "",
    max_request_bytes: MaxBytes = "",
    workspace: Workspace = "",
    as_json: JsonFlag = False,
    database: DatabaseUrl = "",
    config: ConfigFile = None,
) -> None:
    """Add a user. `unmask token create` makes what they sign in with."""
    changes = make_changes(requests_per_minute, requests_at_once, max_request_bytes, workspace)
    with open_store(database, config) as accounts:
        tell(accounts.add_user(name, actor=find_actor(), changes=changes), "added", as_json)


def show(as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """List the users and their limits."""
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import as_json as fields

        users = accounts.users()
    if as_json:
        write_json({"users": [fields(user) for user in users]})
        return
    from rich.table import Table

    table = Table("user", "since", "workspace", "tokens", "a minute", "at once", "bytes", "")
    for user in users:
        limits = (user.requests_per_minute, user.requests_at_once, user.max_request_bytes)
        table.add_row(
            user.name, show_moment(user.created_at), user.workspace or "", str(user.num_tokens),
            *map(show_limit, limits), "disabled" if user.is_disabled else "",
        )  # fmt: skip
    open_console(stderr=False).print(table)


def change(
    name: Name,
    *,
    requests_per_minute: PerMinute = "",
    requests_at_once: AtOnce = "",
    max_request_bytes: MaxBytes = "",
    workspace: Workspace = "",
    as_json: JsonFlag = False,
    database: DatabaseUrl = "",
    config: ConfigFile = None,
) -> None:
    """Change a user's limits. Servers keep them within a second."""
    changes = make_changes(requests_per_minute, requests_at_once, max_request_bytes, workspace)
    with open_store(database, config) as accounts:
        tell(accounts.change_user(name, changes, actor=find_actor()), "changed", as_json)


def disable(name: Name, as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """Refuse all tokens of a user, until `unmask user enable`."""
    _set_disabled(name, True, as_json, database, config)


def enable(name: Name, as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """Take a disabled user's tokens again."""
    _set_disabled(name, False, as_json, database, config)


def _set_disabled(name: str, is_disabled: bool, as_json: bool, database: str, config: ConfigFile) -> None:
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import UserChanges

        user = accounts.change_user(name, UserChanges(is_disabled=is_disabled), actor=find_actor())
        tell(user, "disabled" if is_disabled else "enabled", as_json)


def remove(name: Name, as_json: JsonFlag = False, database: DatabaseUrl = "", config: ConfigFile = None) -> None:
    """Remove a user and their tokens, for good. The audit log keeps what it says of them."""
    with open_store(database, config) as accounts:
        accounts.remove_user(name, actor=find_actor())
    if as_json:
        write_json({"removed": name})
    else:
        open_console(stderr=False).print(f"User {name} is removed.", markup=False)


def make_changes(per_minute: str, at_once: str, max_bytes: str, workspace: str) -> UserChanges:
    """What flags say; the workspace ``-`` is none.

    Raises:
        typer.BadParameter: a limit is no number.
    """
    from diffusion_core.accounts.records import KEEP, UserChanges

    with as_usage_error():
        changes = UserChanges(
            requests_per_minute=parse_limit(per_minute, "--requests-per-minute"),
            requests_at_once=parse_limit(at_once, "--requests-at-once"),
            max_request_bytes=parse_limit(max_bytes, "--max-request-bytes"),
            workspace=None if workspace == "-" else workspace or KEEP,
        )
        changes.limits()
        return changes


def parse_limit(text: str, flag: str) -> int | Keep | None:
    """A limit as a flag says it: None for the server's default, nothing for what stays.

    Raises:
        InvalidRequest: it is neither a number nor ``default``.
    """
    from diffusion_core.accounts.records import KEEP

    if not text:
        return KEEP
    if text == "default":
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 12:
        raise InvalidRequest(f"{flag} is {text[:20]!r}: give a number or default")
    return int(text)


def show_limit(value: int | None) -> str:
    """A limit for a table."""
    return "default" if value is None else "none" if value == 0 else str(value)


def tell(user: User, what: str, as_json: bool) -> None:
    """Say what happened to a user, on stdout."""
    if as_json:
        from diffusion_core.accounts.records import as_json as fields

        write_json(fields(user))
    else:
        open_console(stderr=False).print(f"User {user.name} is {what}.", markup=False)
