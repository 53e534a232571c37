"""The names that a part of a text uses."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Letters, digits, _ and $, not beginning with a digit: an identifier in all languages served, and cheap to find
# without a tree; a word in a comment or a string counts too, and often names what is meant.
_NAME = re.compile(r"[^\W\d][\w$]*")
MIN_NAME = 2


def names_in(lines: Sequence[str], first_line: int, end_line: int) -> dict[str, int]:
    """The names in lines ``first_line`` to ``end_line`` (not included), and how often each stands there."""
    counts: dict[str, int] = {}
    for line in lines[max(0, first_line) : end_line]:
        for name in _NAME.findall(line):
            if len(name) >= MIN_NAME:
                counts[name] = counts.get(name, 0) + 1
    return counts
