"""How a text is indented: by tabs or by spaces, and by how many."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_OPENER_AT_END = re.compile(r"(?:[{(\[:]|[=-]>|\b(?:do|then|else|begin))$")
MAX_WIDTH = 8


@dataclass(frozen=True)
class IndentStyle:
    """``width`` columns a step; 0 means that the text does not show it. ``by_tabs``: a step is one tab."""

    by_tabs: bool = False
    width: int = 0


def white_space(line: str) -> str:
    """The leading spaces and tabs of a line."""
    return line[: len(line) - len(line.lstrip(" \t"))]


def style_of(lines: Sequence[str]) -> IndentStyle:
    """The style most steps of a text have. A step is a line that is deeper than the opening line before it."""
    num_tabs = sum(line.startswith("\t") for line in lines)
    num_spaces = sum(line.startswith("  ") for line in lines)
    if num_tabs > num_spaces:
        return IndentStyle(by_tabs=True, width=1)
    steps: Counter[int] = Counter()
    previous = ""
    for line in lines:
        if not line.strip() or "\t" in white_space(line):
            continue
        step = len(white_space(line)) - len(white_space(previous))
        if opens_block(previous) and 0 < step <= MAX_WIDTH:
            steps[step] += 1
        previous = line
    return IndentStyle(width=steps.most_common(1)[0][0] if steps else 0)


def opens_block(line: str) -> bool:
    """Whether what follows a line is deeper by one step, and not by whatever aligns it."""
    return bool(_OPENER_AT_END.search(line.rstrip()))
