"""Adds ``unmask lsp`` and ``unmask stats`` to the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lsp_server.stats import command as stats


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    stats.register(app)

    @app.command()
    def lsp(
        log_file: Annotated[Path | None, typer.Option(help="Write the log here instead of to stderr.")] = None,
        log_level: Annotated[LogLevel, typer.Option(help="How much is logged. Never source code.")] = LogLevel.WARNING,
        stdio: Annotated[bool, typer.Option("--stdio", help="Accepted because editors pass it.")] = False,
    ) -> None:
        """Language server on stdio, for an editor."""
        from lsp_server.launch import launch

        raise typer.Exit(launch(log_level.value, log_file))
