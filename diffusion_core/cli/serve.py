"""`unmask serve`: the engine as a server, configured by flags, environment and a TOML file, in this order."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from diffusion_core.cli.options import FamilyOption, Model, Target, TokenFile, as_usage_error
from diffusion_core.cli.serve_report import render_example, render_settings
from diffusion_core.config import EngineConfig, RayConfig, ServerConfig, from_environment
from diffusion_core.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_core.net.deferred import StartableEngine

C = TypeVar("C", EngineConfig, ServerConfig, RayConfig)


def register(app: typer.Typer) -> None:
    """Add `serve`."""
    app.command()(serve)


def serve(
    ctx: typer.Context,
    *,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = None,
    model: Model = "",
    family: FamilyOption = "",
    edit_model: Annotated[str, typer.Option("--edit-model", metavar="NAME", help="The model for edits.")] = "",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or auto.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Number format of the weights.")] = None,
    tls_certificate: Annotated[
        str | None, typer.Option("--tls-certificate", metavar="FILE", help="PEM chain, to serve https.")
    ] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="Its key, PEM.")] = None,
    token_file: TokenFile = "",
    users: Annotated[
        str | None, typer.Option("--users", metavar="KIND", help="single: one token. database: users with tokens.")
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="Of the users. Default: a file in the state folder.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", exists=True, dir_okay=False, help="TOML with the tables [engine], [server], [ray]."),
    ] = None,
    check_config: Annotated[
        bool, typer.Option("--check-config", help="Say what would be used and whether it can be, and stop.")
    ] = False,
    example_config: Annotated[
        bool, typer.Option("--example-config", help="Print a file with every setting, commented out, and stop.")
    ] = False,
    use_ray: Annotated[bool, typer.Option("--ray", help="Serve with several replicas of the engine on Ray.")] = False,
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="With --ray: how many. 0: as configured.")] = 0,
) -> None:
    """Run an engine server, for yourself or for a team.

    Flags win over UNMASK_ENGINE_* and UNMASK_SERVER_* variables, these over the file. Without a token the server
    makes one and prints it.
    """
    if example_config:
        sys.stdout.write(render_example({"engine": EngineConfig, "server": ServerConfig, "ray": RayConfig}))
        return
    target = Target(token_file=token_file, model=model, family=family).over(ctx)
    engine_flags = {
        "model": target.model or None, "family": target.family or None, "edit_model": edit_model or None,
        "device": device, "dtype": dtype,
    }  # fmt: skip
    server_flags = {
        "host": host, "port": port, "tls_certificate": tls_certificate, "tls_key": tls_key,
        "token_file": target.token_file or None, "token": "" if target.token_file else None,
        "users": users, "database_url": database,
    }  # fmt: skip
    cluster_flags = {"min_replicas": replicas or None, "max_replicas": replicas or None}
    with as_usage_error():
        tables = read_config_file(config) if config else {}
        engine = merge_config(EngineConfig, "engine", tables, **engine_flags)
        server = merge_config(ServerConfig, "server", tables, **server_flags)
        cluster = merge_config(RayConfig, "ray", tables, **cluster_flags)
    if check_config:
        shown: list[tuple[str, object, dict[str, Any]]] = [
            ("engine", engine, engine_flags),
            ("server", server, server_flags),
        ]
        if use_ray:
            shown.append(("ray", cluster, cluster_flags))
        for section, used, flags in shown:
            table = tables.get(section, {})
            sys.stdout.write(render_settings(section, used, flags=flags, table=table, file=config) + "\n")
    try:
        from diffusion_core.net.serve import check_server, run_server
    except ImportError as error:
        raise ConfigError(f"the server needs the package {error.name}: pip install 'unmask[engine]'") from None
    if check_config:
        check_server(engine, server)
    elif use_ray:
        run_server(engine, server, make=lambda config: deploy_on_ray(config, cluster))
    else:
        run_server(engine, server)


def deploy_on_ray(engine: EngineConfig, cluster: RayConfig) -> StartableEngine:
    """The engine as replicas on Ray; slow.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be used.
    """
    try:
        from diffusion_core.net.ray_app import deploy
    except ImportError as error:
        raise ConfigError(f"--ray needs the package {error.name}: pip install 'unmask[ray]'") from None
    return deploy(engine, cluster)


def read_config_file(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file.

    Raises:
        ConfigError: no TOML, or other tables than ``engine``, ``server`` and ``ray``.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    for name, table in document.items():
        if name not in {"engine", "server", "ray"} or not isinstance(table, dict):
            raise ConfigError(f"{path}: {name!r} is no table [engine], [server] or [ray]")
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
        if known[name] is tuple and type(value) is list and all(type(item) is str for item in value):
            value = tuple(value)  # noqa: PLW2901 - an array of texts
        if type(value) is not known[name]:
            raise ConfigError(f"{section}.{name} is {value!r}: {known[name].__name__} expected")
        if f"UNMASK_{section}_{name}".upper() not in os.environ:
            given[name] = value
    given.update({name: value for name, value in flags.items() if value is not None})
    return from_environment(cls, section, **given)
