"""What the user changed lately, as short differences: the next change is often the like of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from difflib import unified_diff

from lsp_server.snapshot import Snapshot

MAX_EDITS = 6
NEARBY_LINES = 8  # changes this near to each other are one edit
PAUSE_MS = 4000.0  # that ends an edit
MAX_LINES = 40  # an edit with more is a paste or a checkout, and tells nothing about typing


@dataclass
class _Edit:
    old: Snapshot
    new: Snapshot
    first_line: int
    last_line: int
    changed_at_ms: float


class RecentEdits:
    """Follows the versions of all documents; the edit that is being made does not count yet."""

    def __init__(self) -> None:
        self._edits: deque[_Edit] = deque(maxlen=MAX_EDITS + 1)

    def note(self, old: Snapshot, new: Snapshot, now_ms: float) -> None:
        """A document changed."""
        first, old_end, new_end = changed_lines(old, new)
        current = self._edits[-1] if self._edits else None
        is_same = (
            current is not None
            and current.new.uri == new.uri
            and now_ms - current.changed_at_ms < PAUSE_MS
            and first - NEARBY_LINES <= current.last_line
            and current.first_line <= old_end + NEARBY_LINES
        )
        if current is not None and is_same:
            current.new, current.changed_at_ms = new, now_ms
            current.last_line = max(current.last_line + (new_end - old_end), new_end)
            current.first_line = min(current.first_line, first)
        else:
            self._edits.append(_Edit(old, new, first, new_end, now_ms))

    def describe(self, now_ms: float, name_of: Callable[[str], str | None]) -> list[str]:
        """Finished edits as differences, the oldest first. ``name_of`` says how a document is called; None: hide it."""
        found: list[str] = []
        for edit in self._edits:
            name = name_of(edit.new.uri)
            is_finished = edit is not self._edits[-1] or now_ms - edit.changed_at_ms >= PAUSE_MS
            if name is not None and is_finished and (text := _difference(edit)):
                found.append(f"{name}\n{text}")
        return found[-MAX_EDITS:]


def changed_lines(old: Snapshot, new: Snapshot) -> tuple[int, int, int]:
    """First changed line, and the end (not included) of the change in the old and in the new text."""
    before, after = old.lines, new.lines
    limit = min(len(before), len(after))
    head = 0
    while head < limit and before[head] is after[head]:
        head += 1
    while head < limit and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < limit - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    return head, len(before) - tail, len(after) - tail


def _difference(edit: _Edit) -> str:
    first, old_end, new_end = changed_lines(edit.old, edit.new)
    if max(old_end, new_end) - first > MAX_LINES:
        return ""
    begin = max(0, first - 1)
    old = [edit.old.content(line) for line in range(begin, min(len(edit.old.lines), old_end + 1))]
    new = [edit.new.content(line) for line in range(begin, min(len(edit.new.lines), new_end + 1))]
    return "\n".join(list(unified_diff(old, new, lineterm="", n=1))[3:])
