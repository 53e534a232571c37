"""What an edit is about when the user has selected something, or nothing at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lsprotocol.types import Range

from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import SyntaxTree, enclosing_definition
from lsp_server.text_edits import Lines, whole_lines


class ScopeKind(StrEnum):
    """Where a scope comes from."""

    SELECTION = "selection"
    DEFINITION = "definition"
    LINE = "line"
    INSERT = "insert"


@dataclass(frozen=True)
class Scope:
    """The range an edit would rewrite, and the name of the definition it is (empty for other kinds)."""

    range: Range
    kind: ScopeKind
    name: str = ""


def find_scope(snapshot: Snapshot, wanted: Range, tree: SyntaxTree | None = None) -> Scope:
    """Whole lines of a selection; without one the enclosing definition, else the line, or a place on a blank line."""
    start, end = snapshot.point_at(wanted.start), snapshot.point_at(wanted.end)
    if start != end:
        return Scope(range_of_lines(snapshot, whole_lines(snapshot, wanted)), ScopeKind.SELECTION)
    if not snapshot.content(start.line).strip():
        return Scope(snapshot.range_between(start, start), ScopeKind.INSERT)
    definition = enclosing_definition(snapshot, start, tree)
    if definition is not None:
        lines = Lines(definition.first_line, definition.end_line)
        return Scope(range_of_lines(snapshot, lines), ScopeKind.DEFINITION, definition.name)
    return Scope(range_of_lines(snapshot, Lines(start.line, start.line + 1)), ScopeKind.LINE)


def range_of_lines(snapshot: Snapshot, lines: Lines) -> Range:
    """Lines as a range of the editor's: up to the start of the next line, or to the end of the document."""
    end = Point(lines.end, 0) if lines.end < len(snapshot.lines) else snapshot.end
    return snapshot.range_between(Point(lines.first, 0), end)
