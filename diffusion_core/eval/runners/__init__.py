"""Programs that run inside the sandbox and score what is not a plain Python program.

Each module is complete in itself (standard library, and pytest for one): its text, followed by a call of its function
with literal arguments, is the sandbox's program. A function that returns has passed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def _text(name: str) -> str:
    return Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")


def render_runner(name: str, /, **arguments: object) -> str:
    """The program that calls the function ``name`` of the module ``name``; arguments are literals."""
    # The call stands on a line of its own: a traceback shows it, and files and tests do not belong there.
    return f"{_text(name)}\n\nARGUMENTS = {arguments!r}\n{name}(**ARGUMENTS)\n"
