"""`unmask login` and `unmask logout`: keep the token of a team's server, so that no setting has to hold it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import Annotated

import typer

from diffusion_core.cli.options import as_usage_error
from diffusion_core.cli.output import open_console
from diffusion_core.config import ClientConfig, from_environment
from diffusion_core.errors import ConfigError
from diffusion_core.requests import Health

ServerUrl = Annotated[str, typer.Argument(metavar="[URL]", help="The server's address. Default: $UNMASK_CLIENT_URL.")]


def register(app: typer.Typer) -> None:
    """Add `login` and `logout`."""
    app.command()(login)
    app.command()(logout)


def login(
    url: ServerUrl = "",
    ca_file: Annotated[str, typer.Option("--ca-file", metavar="FILE", help="Authority of its certificate.")] = "",
) -> None:
    """Ask for the token of a server, try it, and keep it for all editors and commands of this user.

    It is typed without echo, or read from standard input: pass show unmask | unmask login URL. It is kept in the
    system's keyring (pip install 'unmask[keyring]'), or else in a file that only you can read.
    """
    config = _config(url, ca_file)
    token = _read_token(config.url)
    health = asyncio.run(_try(replace(config, token=token)))
    from diffusion_core.net.token_store import store_token

    place = store_token(config.url, token)
    console = open_console(stderr=False)
    models = ", ".join(model.name for model in health.models) or health.status
    console.print(f"{config.url} accepts the token ({models}). It is kept in {place.description}.", markup=False)
    if not place.is_keyring:
        console.print("No keyring is in use: whoever can read your files can read it. pip install 'unmask[keyring]'")
    console.print(f"In the editor: unmask.engine.url = {config.url}; no token setting is needed.", markup=False)


def logout(url: ServerUrl = "") -> None:
    """Forget the token that `unmask login` kept for a server. The server goes on accepting it until it is revoked."""
    config = _config(url, "")
    from diffusion_core.net.token_store import forget_token

    if not forget_token(config.url):
        raise ConfigError(f"no token is kept for {config.url}")
    open_console(stderr=False).print(f"The token for {config.url} is forgotten.", markup=False)


def _config(url: str, ca_file: str) -> ClientConfig:
    with as_usage_error():
        config = from_environment(ClientConfig, "client", url=url or None, ca_file=ca_file or None)
        if not config.url:
            raise ConfigError("name the server: unmask login https://host:port")
        return replace(config, more_urls=(), fallback="none", max_attempts=1, token="", token_file="")


def _read_token(url: str) -> str:
    from diffusion_core.net.auth import check_token

    is_person = sys.stdin.isatty()
    given = typer.prompt(f"Token for {url}", hide_input=True, err=True) if is_person else sys.stdin.readline()
    return check_token(given.strip(), "what was typed")


async def _try(config: ClientConfig) -> Health:
    from diffusion_core.net.launcher import connect

    client = connect(config)
    try:
        return await client.health()
    finally:
        await client.aclose()
