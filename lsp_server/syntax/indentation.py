"""What indentation alone says about a text, for languages without a grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffusion_core.scope import width_of

_NAME = re.compile(
    r"\b(?P<kind>function|func|fun|fn|def|sub|proc|class|struct|interface|trait|enum|module|impl)\s+(?P<name>[\w.:]+)"
)
_KINDS = {"class": "class", "struct": "struct", "interface": "interface", "trait": "trait", "enum": "enum",
          "module": "module", "impl": "impl"}  # fmt: skip
_BEGINS = re.compile(
    r"\s*(?:\w+\s+){0,3}?(?:function|func|fun|fn|def|sub|proc|class|struct|interface|trait|enum|module|impl)\b"
)
_CLOSER = re.compile(r"\s*(end\b|[)\]}])")


def indent_of(line: str) -> int:
    """The width of a line's leading white space, in columns: only the comparison of two lines counts."""
    return width_of(line)


def enclosing_block(lines: Sequence[str], line: int) -> tuple[int, int, str, str] | None:
    """First line, end line (not included), name and kind of the innermost definition around ``line``.

    A definition is a line that a keyword begins, with deeper lines below it and perhaps a closing line.
    """
    if not lines[line].strip():
        return None
    least = indent_of(lines[line]) + 1
    for first in range(line, -1, -1):
        if not lines[first].strip() or indent_of(lines[first]) >= least:
            continue
        found = _NAME.search(lines[first])
        if found is None and first == line and _CLOSER.match(lines[line]):
            continue  # what it closes began at its own depth
        if found and (end := _end_of_block(lines, first)) > line:
            return first, end, found["name"], _KINDS.get(found["kind"], "function")
        least = indent_of(lines[first])
        if least == 0:
            return None
    return None


def _end_of_block(lines: Sequence[str], first: int) -> int:
    base, end = indent_of(lines[first]), first + 1
    for number in range(first + 1, len(lines)):
        if not lines[number].strip():
            continue
        if indent_of(lines[number]) <= base:
            return number + 1 if indent_of(lines[number]) == base and _CLOSER.match(lines[number]) else end
        end = number + 1
    return end


def begins_definition(line: str) -> bool:
    """Whether a line begins with a word that defines something."""
    return bool(_BEGINS.match(line))


def closes_block(line: str) -> bool:
    """Whether a line closes the block above it, by a bracket or by the word ``end``."""
    return bool(_CLOSER.match(line))
