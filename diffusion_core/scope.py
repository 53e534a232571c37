"""Where a text of significant indentation leaves the place it was written for.

A cursor stands in nested blocks. Which of them the text may leave depends on the line below: blocks deeper than it are
still open, the one it belongs to is not the text's to end. With nothing below, the whole function is open. What may be
left is a depth; a line less deep ends the text, except for clauses (``else:``) that go on with a statement from above.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_DEFINITION = re.compile(r"(?:async\s+def|def|class|proc|method|macro)\b")
_CLASS = re.compile(r"class\b")
_CLAUSE = re.compile(r"(?:elif|else|except|finally)\b|case\s+[^\s=]")
_CLOSERS = tuple(")]}")


def width_of(line: str) -> int:
    """The columns of a line's leading white space; a tab reaches to the next multiple of 8."""
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(8))


class IndentedScope:
    """Which lines of a text between ``prefix`` and ``suffix`` are still inside.

    ``has_clauses`` is false for languages in which no line goes on with the statement above it.
    """

    def __init__(self, prefix: str, suffix: str, *, has_clauses: bool = True) -> None:
        *self._above, self._head = prefix.split("\n")
        below = [line for line in suffix.split("\n")[1:] if line.strip()]
        self._below = below[0] if below else ""
        self._has_clauses = has_clauses
        self._floors: dict[int, int | None] = {}  # by the depth of the cursor: the text is asked about at each token

    def first_outside(self, lines: Sequence[str], continued: Collection[int] = ()) -> int | None:
        """The number of the first of the text's lines that is outside, or None; ``lines[0]`` ends the cursor's line.

        The last line may be unfinished: the beginning of a line decides, from its first character that is not a space.
        ``continued`` are lines that begin inside a string or a bracket: their depth says nothing.
        """
        return self.judge(lines, continued)[0]

    def judge(self, lines: Sequence[str], continued: Collection[int]) -> tuple[int | None, bool]:
        """:meth:`first_outside`, and whether more of the last line cannot change that."""
        is_decided = len(lines) == 1
        first = next((i for i, line in enumerate(lines) if (self._head if i == 0 else "") + line.strip()), None)
        if first is None:
            return None, is_decided
        opening = self._head + lines[0] if first == 0 else lines[first]
        own = width_of(opening) if opening.strip() else width_of(self._head)
        if own not in self._floors:
            self._floors[own] = self._floor(own)
        least, least_clause = self._limits(own, self._floors[own])
        for number in range(max(first, 1), len(lines)):
            line = lines[number]
            body = line.strip()
            # A closing bracket ends a header or a literal that was broken over lines, not a scope.
            is_last = number == len(lines) - 1
            if not body or body.startswith(_CLOSERS) or number in continued or (width := width_of(line)) >= least:
                # Its depth stands from its first character on.
                is_decided = is_last and bool(body)
                continue
            if least_clause is None or width < least_clause or not _may_be_clause(body, is_last=is_last):
                return number, True
            least = min(least, width + 1)
        return None, is_decided

    def _limits(self, own: int, floor: int | None) -> tuple[int, int | None]:
        """The least depth of a line inside, and of a clause; None where no clause may follow."""
        bottom = width_of(self._below) if self._below else -1
        is_header = bool(_DEFINITION.match(self._head.lstrip()))
        inner = own + is_header
        least_clause = floor or 0
        if bottom < inner:
            least = max(bottom + 1, inner if floor is None else min(floor, inner))
            least_clause = max(least_clause, bottom + bool(_CLAUSE.match(self._below.strip())))
        else:
            least = inner
        if not self._has_clauses or bottom == inner:
            return least, None
        return least, least_clause

    def _floor(self, own: int) -> int | None:
        """The least depth inside the outermost function around the cursor that is not beyond a class."""
        depth, floor = own, None
        for line in reversed(self._above):
            body = line.strip()
            if not body or body.startswith(("#", *_CLOSERS)) or (width := width_of(line)) >= depth:
                continue
            depth = width
            if _CLASS.match(body):
                break
            if _DEFINITION.match(body):
                floor = width + 1
        return floor


def _may_be_clause(body: str, *, is_last: bool) -> bool:
    """Whether a line is a clause; one that is still being written may become one."""
    if _CLAUSE.match(body):
        return True
    return is_last and may_become_clause(body)


def may_become_clause(body: str) -> bool:
    """Whether a line that begins so, and is still being written, may turn out to be a clause or not to be one."""
    return any(word.startswith(body) for word in ("elif", "else", "except", "finally", "case "))
