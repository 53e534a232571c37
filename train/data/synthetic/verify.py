"""Whether the two sides of an edit are both programs, and differ as they should."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from train.data.synthetic.patches import Span
from train.data.synthetic.proposal import Proposal
from train.data.synthetic.python_source import PythonSource, parse_python
from train.data.synthetic.tree_source import TreeSource, parse_tree


def is_sound(
    source: PythonSource | TreeSource, before: str, after: str, proposals: Sequence[Proposal], changed: Span
) -> bool:
    """Both sides are programs, they differ as such (or in comments, where that is asked for), and checks hold.

    Args:
        source: the file that the sides were made from; a side that equals it is known to be a program.
        before: the whole file that the user starts with.
        after: the whole file after the edit.
        proposals: what was proposed for it.
        changed: the characters of the source that a patch replaces; all others are the same on both sides.
    """
    first_line = source.text.count("\n", 0, changed.start) + 1
    lines_below = source.text.count("\n", changed.end)
    sides = [_syntax(source, side, first_line, side.count("\n") + 1 - lines_below) for side in (before, after)]
    if sides[0] is None or sides[1] is None:
        return False
    if (sides[0] == sides[1]) != all(proposal.changes_comments_only for proposal in proposals):
        return False
    return len(proposals) > 1 or all(proposal.check is None or proposal.check(before, after) for proposal in proposals)


def _syntax(source: PythonSource | TreeSource, side: str, first_line: int, last_line: int) -> list[str] | None:
    """What the lines (from 1) of one side mean to a parser; None where it is no program."""
    if isinstance(source, PythonSource):
        tree = source.tree if side == source.text else parse_python(side)
        return None if tree is None else _dump_between(tree, first_line, last_line)
    other = source if side == source.text else parse_tree(side, source.language)
    return None if other is None else other.code_tokens(first_line - 2, last_line)


def _dump_between(tree: ast.Module, first_line: int, last_line: int) -> list[str]:
    """The syntax of the top-level statements that touch the lines: dumping a whole file takes a while."""
    return [
        ast.dump(statement)
        for statement in tree.body
        if (statement.end_lineno or 0) >= first_line and _first_line(statement) <= last_line
    ]


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])
