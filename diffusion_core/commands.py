"""The `unmask` command line: puts the commands together and turns errors into exit codes.

Exit codes: 0 done, 1 the work failed, 2 bad usage, 130 interrupted. Other packages add commands through the
entry-point group ``unmask.commands``. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Annotated

import typer

from diffusion_core.cli import (
    audit,
    bench,
    complete,
    edit,
    evaluate,
    login,
    models,
    pull,
    serve,
    status,
    stop,
    token,
    user,
    workspace,
)
from diffusion_core.cli.options import FamilyOption, Model, Target, TokenFile, Url
from diffusion_core.cli.output import open_console
from diffusion_core.errors import UnmaskError
from diffusion_core.native import leave

ENTRY_POINT_GROUP = "unmask.commands"


def make_app() -> typer.Typer:
    """The application with all commands, also those of other packages."""
    app = typer.Typer(
        name="unmask",
        no_args_is_help=True,
        # A traceback with local variables would show source code and tokens.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(main_options)
    for part in (
        serve, complete, edit, pull, models, status, stop, login, evaluate, bench, user, token, workspace, audit,
    ):  # fmt: skip
        part.register(app)
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        _add_foreign(app, entry_point)
    return app


def _add_foreign(app: typer.Typer, entry_point: EntryPoint) -> None:
    """Add the commands of another package; one that is broken must not take the others with it."""
    try:
        register = entry_point.load()
    except (ImportError, AttributeError) as error:
        sys.stderr.write(f"warning: the commands of {entry_point.name} cannot be loaded: {error}\n")
        return
    register(app)


def main_options(
    ctx: typer.Context,
    *,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version)
    ] = False,
    url: Url = "",
    token_file: TokenFile = "",
    model: Model = "",
    family: FamilyOption = "",
) -> None:
    """Complete and edit code with a block-diffusion model, from an engine on your own machine."""
    ctx.obj = Target(url=url, token_file=token_file, model=model, family=family)


def print_version(wanted: bool) -> None:
    """Print the version and leave, if ``wanted``."""
    if not wanted:
        return
    try:
        typer.echo(f"unmask {version('unmask')}")
    except PackageNotFoundError:
        typer.echo("unmask 0 (not installed)")
    raise typer.Exit


def main() -> None:
    """Run the command line and end the process."""
    leave(run())


def run() -> int:
    """Run the command line; the exit status."""
    try:
        make_app()(prog_name="unmask")
    except UnmaskError as error:
        open_console().print(f"error: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; Python would complain once more at exit
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


if __name__ == "__main__":
    main()
