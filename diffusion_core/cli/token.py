"""`unmask token`: what a user shows to a shared server."""

from __future__ import annotations

from typing import Annotated

import typer

from diffusion_core.cli.accounts import ConfigFile, DatabaseUrl, find_actor, open_store, show_moment
from diffusion_core.cli.options import JsonFlag, as_usage_error
from diffusion_core.cli.output import open_console, write_json, write_text
from diffusion_core.errors import InvalidRequest


def register(app: typer.Typer) -> None:
    """Add `token` and its commands."""
    commands = typer.Typer(help="Make, list and revoke the tokens of a server's users.", no_args_is_help=True)
    for function, name in ((create, "create"), (show, "list"), (revoke, "revoke")):
        commands.command(name)(function)
    app.add_typer(commands, name="token")


def create(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose token it is.")],
    *,
    scope: Annotated[
        list[str], typer.Option("--scope", metavar="SCOPE", help="complete, edit, metrics, admin; several with commas.")
    ] = ["complete,edit"],  # noqa: B006 - typer reads it, nobody writes to it
    expires: Annotated[str, typer.Option("--expires", metavar="TIME", help="30m, 12h, 90d, 2w or never.")] = "never",
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What it is for, such as laptop.")] = "",
    as_json: JsonFlag = False,
    database: DatabaseUrl = "",
    config: ConfigFile = None,
) -> None:
    """Make a token and print it on stdout, once: it is not kept, so it cannot be shown again."""
    from diffusion_core.accounts.durations import parse_duration
    from diffusion_core.accounts.naming import parse_scopes

    with as_usage_error():
        scopes = parse_scopes([part.strip() for given in scope for part in given.split(",") if part.strip()])
        lifetime = parse_duration(expires)
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import as_json as fields

        token, secret = accounts.create_token(user, actor=find_actor(), scopes=scopes, name=name, lifetime=lifetime)
    if as_json:
        write_json({**fields(token), "token": secret})
        return
    open_console().print(
        f"Token {token.id} of {token.user}, for {', '.join(scopes)}, "
        f"expires {show_moment(token.expires_at, otherwise='never')}. It is shown only now:",
        markup=False,
    )
    write_text(secret + "\n")


def show(
    user: Annotated[str, typer.Argument(metavar="[USER]", help="Of one user only.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also revoked and expired ones.")] = False,
    as_json: JsonFlag = False,
    database: DatabaseUrl = "",
    config: ConfigFile = None,
) -> None:
    """List tokens that can be used, by what may be shown of them."""
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import as_json as fields
        from diffusion_core.accounts.records import now

        at = now()
        tokens = [each for each in accounts.tokens(user or None) if everything or each.is_usable(at)]
    if as_json:
        write_json({"tokens": [fields(token) for token in tokens]})
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("id", "user", "name", "token", "scopes", "made", "expires", "last used", "")
    for token in tokens:
        state = "revoked" if token.revoked_at else "" if token.is_usable(at) else "expired"
        table.add_row(
            str(token.id), token.user, escape(token.name), f"{token.beginning}…", " ".join(token.scopes),
            show_moment(token.created_at), show_moment(token.expires_at, otherwise="never"),
            show_moment(token.last_used_at, otherwise="never"), state,
        )  # fmt: skip
    open_console(stderr=False).print(table)


def revoke(
    token_id: Annotated[int | None, typer.Argument(metavar="[ID]", help="As `unmask token list` shows it.")] = None,
    user: Annotated[str, typer.Option("--user", metavar="USER", help="All tokens of this user.")] = "",
    as_json: JsonFlag = False,
    database: DatabaseUrl = "",
    config: ConfigFile = None,
) -> None:
    """End a token, or all of a user's. Servers refuse it within a second."""
    if (token_id is None) == (not user):
        with as_usage_error():
            raise InvalidRequest("give either the ID of a token or --user")
    with open_store(database, config) as accounts:
        from diffusion_core.accounts.records import as_json as fields

        if token_id is None:
            ended = accounts.revoke_tokens_of(user, actor=find_actor())
        else:
            ended = [accounts.revoke_token(token_id, actor=find_actor())]
    if as_json:
        write_json({"tokens": [fields(token) for token in ended]})
        return
    for token in ended:
        open_console(stderr=False).print(f"Token {token.id} of {token.user} is revoked.", markup=False)
    if not ended:
        open_console(stderr=False).print(f"{user} had no token that was not revoked.", markup=False)
