"""Where a cursor is after more was typed at it."""

from __future__ import annotations

from lsp_server.snapshot import Point, Snapshot


def follow(old: Snapshot, point: Point, new: Snapshot) -> Point | None:
    """The place of ``point`` in a newer text: behind what was typed at it on its line. None: something else changed."""
    line, column = point
    if len(new.lines) != len(old.lines) or new.lines[:line] != old.lines[:line]:
        return None
    if new.lines[line + 1 :] != old.lines[line + 1 :]:
        return None
    before, after = old.content(line)[:column], old.content(line)[column:]
    content = new.content(line)
    if len(content) < len(before) + len(after) or not content.startswith(before) or not content.endswith(after):
        return None
    return Point(line, len(content) - len(after))
