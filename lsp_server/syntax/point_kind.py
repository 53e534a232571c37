"""Whether a place is in a string, in a comment, or in code.

A string that is being typed has no end yet, and a grammar then guesses. Where the tree has an error near the place,
the line itself is scanned for quotes and comment marks.
"""

from __future__ import annotations

from enum import StrEnum

from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax.node_kinds import KINDS, NodeKinds
from lsp_server.syntax.tree import SyntaxTree, ancestors, parse_snapshot


class PointKind(StrEnum):
    """What stands around a place."""

    CODE = "code"
    STRING = "string"
    COMMENT = "comment"


# Languages without a grammar: their comment mark, for the scan of the line.
_LINE_COMMENTS = {
    "ruby": "#", "shellscript": "#", "yaml": "#", "toml": "#", "r": "#", "perl": "#", "elixir": "#", "makefile": "#",
    "dockerfile": "#", "lua": "--", "sql": "--", "haskell": "--", "csharp": "//", "kotlin": "//", "swift": "//",
    "php": "//", "scala": "//", "dart": "//", "zig": "//",
}  # fmt: skip


def kind_at(snapshot: Snapshot, point: Point, tree: SyntaxTree | None = None) -> PointKind:
    """What a character typed at ``point`` would be part of. ``tree`` saves parsing again."""
    tree = tree or parse_snapshot(snapshot)
    if tree is not None:
        found = _in_tree(tree, point)
        if found is not None:
            return found
    return _scan(snapshot.content(point.line)[: point.column], KINDS.get(snapshot.language), snapshot.language)


def _in_tree(tree: SyntaxTree, point: Point) -> PointKind | None:
    """What the tree says; None where it is in error there."""
    offset = tree.byte_at(point)
    candidates = [tree.smallest_at(point)]
    if point.column:  # a comment or an unfinished string ends right before the cursor
        candidates.append(tree.smallest_at(Point(point.line, point.column - 1)))
    is_sure = True
    for candidate in candidates:
        for node in ancestors(candidate):
            if node.type in tree.kinds.interpolations and node.start_byte < offset < node.end_byte:
                return PointKind.CODE
            if node.start_byte < offset and node.type in tree.kinds.comments:
                is_open = node.end_byte == offset and not tree.text_of(node).endswith("*/")
                if offset < node.end_byte or is_open:
                    return PointKind.COMMENT
            if node.start_byte < offset < node.end_byte and node.type in tree.kinds.strings:
                return PointKind.STRING
            if node.type == "ERROR" or node.is_missing:
                is_sure = node.start_byte > offset or node.parent is None
        if candidate.has_error or candidate.type == "ERROR":
            is_sure = False
    if is_sure and _row_has_error(tree, point.line):
        is_sure = False
    return PointKind.CODE if is_sure else None


def _row_has_error(tree: SyntaxTree, row: int) -> bool:
    end = len(tree.lines[row])
    node = tree.root.descendant_for_byte_range(tree.byte_at(Point(row, 0)), tree.byte_at(Point(row, end)))
    return node is not None and node.has_error


def _scan(head: str, kinds: NodeKinds | None, language: str) -> PointKind:
    """What the part of a line before the cursor leaves open. Strings of several lines are not seen here."""
    comment = kinds.line_comment if kinds else _LINE_COMMENTS.get(language, "")
    quotes = kinds.quotes if kinds else "\"'"
    triples = [quote for quote in (kinds.multi_line_quotes if kinds else ()) if len(quote) > 1]
    quote, index = "", 0
    while index < len(head):
        if quote:
            if head[index] == "\\":
                index += 1
            elif head.startswith(quote, index):
                index += len(quote) - 1
                quote = ""
        elif comment and head.startswith(comment, index):
            return PointKind.COMMENT
        else:
            triple = next((mark for mark in triples if head.startswith(mark, index)), "")
            if triple or head[index] in quotes:
                quote = triple or head[index]
                index += len(quote) - 1
        index += 1
    return PointKind.STRING if quote else PointKind.CODE
