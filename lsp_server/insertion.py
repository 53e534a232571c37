"""Edits on a blank line: new code is inserted, in the indentation that belongs there."""

from __future__ import annotations

from collections.abc import Iterable

from lsp_server.snapshot import Snapshot
from lsp_server.text_edits import Lines


def indentation_pattern(snapshot: Snapshot, lines: Lines, selection: str) -> str:
    """A text that is indented as the answer to an edit of ``selection`` should be: mostly the selection itself.

    A blank selection has nothing to go by. Then its own white space counts, or, on an empty line, what the
    lines above and below share: between two methods that is the indentation of methods.
    """
    if selection.strip():
        return selection
    own = snapshot.content(lines.first)
    if own:
        return own + "|"
    above = _indent_of(snapshot, range(lines.first - 1, -1, -1))
    below = _indent_of(snapshot, range(lines.end, len(snapshot.lines)))
    if above is None or below is None:
        return "|"
    return min(above, below, key=len) + "|"


def _indent_of(snapshot: Snapshot, order: Iterable[int]) -> str | None:
    """The indentation of the first line with content."""
    for line in order:
        content = snapshot.content(line)
        if content.strip():
            return content[: len(content) - len(content.lstrip())]
    return None
