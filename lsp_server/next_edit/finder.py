"""From the changes of documents to the most likely next edit."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from lsp_server.context.recent_edits import changed_lines
from lsp_server.next_edit.candidates import Candidate, find_candidates
from lsp_server.next_edit.confidence import confidence
from lsp_server.next_edit.line_change import LineChange, change_between
from lsp_server.snapshot import Snapshot

MAX_DOCUMENTS = 8
MAX_EARLIER = 6


@dataclass
class _Edit:
    """The edit that is being made: the text before it, and the lines it is in now."""

    base: Snapshot
    lines: range


@dataclass
class _History:
    """``declined``: lines and what they would have become, which the user or the model did not want."""

    current: _Edit | None = None
    declined: set[tuple[str, str]] = field(default_factory=set)
    earlier: deque[LineChange] = field(default_factory=lambda: deque(maxlen=MAX_EARLIER))


@dataclass(frozen=True)
class NextEdit:
    """A place for the change that was just made, and how sure that is."""

    candidate: Candidate
    confidence: float
    change: LineChange
    before: str


class NextEdits:
    """Follows the edits of each document. For one thread."""

    def __init__(self) -> None:
        self._histories: OrderedDict[str, _History] = OrderedDict()
        self._offered: OrderedDict[str, tuple[str, NextEdit]] = OrderedDict()

    def clear(self) -> None:
        """Forget everything."""
        self._histories.clear()
        self._offered.clear()

    def closed(self, uri: str) -> None:
        """A document was closed."""
        self._histories.pop(uri, None)

    def note(self, old: Snapshot, new: Snapshot) -> None:
        """A document was changed. Changes of the same lines are one edit; one elsewhere begins another."""
        history = self._histories.setdefault(new.uri, _History())
        self._histories.move_to_end(new.uri)
        while len(self._histories) > MAX_DOCUMENTS:
            self._histories.popitem(last=False)
        first, old_end, new_end = changed_lines(old, new)
        current = history.current
        if current is not None and _overlap(current.lines, first, old_end):
            grown = new_end - old_end
            current.lines = range(min(first, current.lines.start), max(new_end, current.lines.stop + grown))
            return
        if current is not None and (change := _change(current, old)) is not None:
            history.earlier.append(change)
        history.current = _Edit(old, range(first, new_end))

    def best(self, snapshot: Snapshot, min_confidence: float) -> NextEdit | None:
        """The most likely place in a document as it is now; of equals the nearest; None below ``min_confidence``."""
        history = self._histories.get(snapshot.uri)
        if history is None or history.current is None:
            return None
        change = _change(history.current, snapshot)
        if change is None:
            return None
        edited = history.current.lines
        lines = [snapshot.content(line) for line in range(len(snapshot.lines))]
        found = [
            (confidence(one.key), one)
            for one in find_candidates(lines, edited, change, history.earlier)
            if (lines[one.line], one.text) not in history.declined
        ]
        value, candidate = max(found, key=lambda pair: pair[0], default=(0.0, None))
        if candidate is None or value < min_confidence:
            return None
        return NextEdit(candidate, value, change, lines[candidate.line])

    def offered(self, edit_id: str, uri: str, found: NextEdit) -> None:
        """A next edit is shown under this id."""
        self._offered[edit_id] = (uri, found)
        while len(self._offered) > MAX_DOCUMENTS:
            self._offered.popitem(last=False)

    def rejected(self, edit_id: str) -> None:
        """An edit was rejected; if it was a next edit, it is not found again."""
        if edit_id in self._offered:
            self.decline(*self._offered.pop(edit_id))

    def decline(self, uri: str, found: NextEdit) -> None:
        """Do not find this place for this change again while the document is open."""
        history = self._histories.get(uri)
        if history is not None:
            history.declined.add((found.before, found.candidate.text))


def _overlap(lines: range, first: int, end: int) -> bool:
    """Whether a change of the lines from ``first`` to ``end`` is one of ``lines``; an insertion at their edge is."""
    if first == end:
        return lines.start <= first <= lines.stop
    return first < max(lines.stop, lines.start + 1) and end > lines.start


def _change(edit: _Edit, present: Snapshot) -> LineChange | None:
    first, old_end, new_end = changed_lines(edit.base, present)
    old = [edit.base.content(line) for line in range(first, old_end)]
    return change_between(old, [present.content(line) for line in range(first, new_end)])
