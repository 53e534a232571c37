"""`unmask serve`: the engine as a server, configured by flags, environment and a TOML file, in this order."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from diffusion_core.cli.options import Model, Target, TokenFile, as_usage_error
from diffusion_core.config import EngineConfig, ServerConfig, from_environment
from diffusion_core.errors import ConfigError

C = TypeVar("C", EngineConfig, ServerConfig)


def register(app: typer.Typer) -> None:
    """Add `serve`."""
    app.command()(serve)


def serve(
    ctx: typer.Context,
    *,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = None,
    model: Model = "",
    edit_model: Annotated[str, typer.Option("--edit-model", metavar="NAME", help="The model for edits.")] = "",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.")] = None,
    token_file: TokenFile = "",
    config: Annotated[
        Path | None,
        typer.Option("--config", exists=True, dir_okay=False, help="TOML with the tables [engine] and [server]."),
    ] = None,
) -> None:
    """Run an engine server.

    Flags win over UNMASK_ENGINE_* and UNMASK_SERVER_* variables, these over the file. Without a token the server
    makes one and prints it.
    """
    target = Target(token_file=token_file, model=model).over(ctx)
    with as_usage_error():
        tables = read_config_file(config) if config else {}
        engine = merge_config(
            EngineConfig, "engine", tables, model=target.model or None, edit_model=edit_model or None, device=device
        )
        server = merge_config(
            ServerConfig, "server", tables, host=host, port=port,
            token_file=target.token_file or None, token="" if target.token_file else None,
        )  # fmt: skip
    try:
        from diffusion_core.net.serve import run_server
    except ImportError as error:
        raise ConfigError(f"the server needs the package {error.name}: pip install 'unmask[engine]'") from None
    run_server(engine, server)


def read_config_file(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file.

    Raises:
        ConfigError: no TOML, or other tables than ``engine`` and ``server``.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    for name, table in document.items():
        if name not in {"engine", "server"} or not isinstance(table, dict):
            raise ConfigError(f"{path}: {name!r} is no table [engine] or [server]")
    return document


def merge_config(cls: type[C], section: str, tables: Mapping[str, dict[str, Any]], **flags: Any) -> C:
    """A configuration from flags, then the environment, then a file's table.

    Raises:
        ConfigError: an unknown setting, or a value of the wrong type.
    """
    known = {field.name: type(field.default) for field in fields(cls)}
    given: dict[str, Any] = {}
    for name, value in tables.get(section, {}).items():
        if name not in known:
            raise ConfigError(f"{section}.{name} is no setting: known are {', '.join(sorted(known))}")
        if known[name] is float and type(value) is int:
            value = float(value)  # noqa: PLW2901 - TOML's 5 is meant as 5.0
        if type(value) is not known[name]:
            raise ConfigError(f"{section}.{name} is {value!r}: {known[name].__name__} expected")
        if f"UNMASK_{section}_{name}".upper() not in os.environ:
            given[name] = value
    given.update({name: value for name, value in flags.items() if value is not None})
    return from_environment(cls, section, **given)
