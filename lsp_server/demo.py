"""`unmask demo`: pulls the models, opens a language-server session, and shows ghost text and an edit, with real parts.

Nothing here answers by itself: every text comes from the engine, through the language server, as in an editor.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from diffusion_core.cli.options import Model, Target, TokenFile, Url

if TYPE_CHECKING:
    from diffusion_core.config import ClientConfig

Plain = Annotated[bool, typer.Option("--plain", help="No colours and nothing that moves: for logs.")]
NoEditModel = Annotated[
    bool, typer.Option("--no-edit-model", help="Do not download the larger model for edits (1 GB).")
]
StopEngine = Annotated[bool, typer.Option("--stop-engine", help="Stop the local engine at the end.")]


def register(app: typer.Typer) -> None:
    """Add `demo`."""
    app.command()(demo)


def demo(
    ctx: typer.Context,
    *,
    plain: Plain = False,
    no_edit_model: NoEditModel = False,
    stop_engine: StopEngine = False,
    model: Model = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Show Unmask at work: ghost text and an edit in a small Python file, through a real language server.

    Models that are missing are downloaded first. Whether the edited file works is found out by running it.
    """
    if plain:
        os.environ["TTY_COMPATIBLE"] = "0"  # rich's own switch; the progress bar of the download heeds it too
    config = Target(url=url, token_file=token_file, model=model).over(ctx).make_client_config()
    try:
        run(config, with_edit_model=not no_edit_model, stop_engine=stop_engine)
    except KeyboardInterrupt:
        typer.echo("stopped; what is downloaded stays", err=True)
        raise typer.Exit(130) from None


def run(config: ClientConfig, *, with_edit_model: bool, stop_engine: bool) -> None:
    """All of the demo.

    Raises:
        UnmaskError: a step cannot be done; the message is for the user.
    """
    import asyncio
    import time

    from lsp_server.demo_models import pull_models
    from lsp_server.demo_screen import Screen
    from lsp_server.demo_tour import Tour

    begin = time.monotonic()
    screen = Screen()
    screen.heading("1. Models")
    if config.url:
        screen.say(f"those of the engine at {config.url}")
    else:
        pull_models(config.engine, screen, with_edit_model=with_edit_model)
    asyncio.run(Tour(config, screen, stop_engine=stop_engine).run())
    screen.say(f"\nThe demo took {time.monotonic() - begin:.0f} s.")
