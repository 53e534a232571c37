"""The file and the edit that most tests of edits in Neovim are about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.lsp_engine import WrittenEngine
from helpers.neovim import Neovim

TEXT = "import os\n\n\ndef f(a):\n    x = a\n    y = x\n    return y\n\n\nprint(f(1))\n"
EDITED = "def f(a: int):\n    x = a\n    y = x\n    return x\n"
LINES = TEXT.rstrip("\n").split("\n")


def begin(
    nvim: Neovim,
    engine: WrittenEngine,
    edit: Callable[..., Path],
    *,
    text: str = TEXT,
    edited: str = EDITED,
    lines: str = "4,7",
    **options: Any,
) -> Path:
    """A file, and an edit of some of its lines under way."""
    engine.edits = {"do": edited}
    path = edit(text, **options)
    nvim.command(f"{lines}Unmask edit do")
    return path
