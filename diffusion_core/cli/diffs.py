"""Unified diffs: exact ones for `patch`, coloured ones for people."""

from __future__ import annotations

from difflib import unified_diff

from diffusion_core.cli.output import open_console

NO_NEWLINE = "\\ No newline at end of file\n"


def make_diff(path: str, before: str, after: str) -> str:
    r"""A unified diff that `patch -p1` and `git apply` take; empty when nothing changed.

    Only ``\n`` ends a line here, as for those programs; a carriage return is part of its line.
    """
    name = path.lstrip("/")
    lines = unified_diff(_split(before), _split(after), f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}" for line in lines)


def _split(text: str) -> list[str]:
    *lines, last = text.split("\n")
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def print_diff(diff: str) -> None:
    """The diff on stdout, coloured on a terminal."""
    from rich.text import Text

    console = open_console(stderr=False)
    if not diff:
        open_console().print("nothing to change", style="yellow")
    styles = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green", "\\": "dim"}
    for line in diff.split("\n")[:-1]:
        style = next((style for mark, style in styles.items() if line.startswith(mark)), "")
        console.print(Text(line.rstrip("\r"), style=style))
