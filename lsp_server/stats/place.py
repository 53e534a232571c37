"""Where an accepted text is while the document around it changes, and how much of it is still there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from lsprotocol.types import Position, TextDocumentContentChangePartial

from lsp_server.positions import Encoding, character_at
from lsp_server.snapshot import Snapshot

_LINE_END = re.compile(r"\r\n|\n|\r")
# A text is compared character by character up to this length, above it line by line.
MAX_COMPARED = 10_000


class Spot(NamedTuple):
    """Line and character as the editor counts them."""

    line: int
    character: int


@dataclass
class Place:
    """The range of a text in a document, which moves with every change."""

    start: Spot
    end: Spot

    @staticmethod
    def of(start: Position, text: str, encoding: Encoding) -> Place:
        """The place of a text that was inserted at ``start``."""
        begin = Spot(start.line, start.character)
        return Place(begin, _end_of(begin, text, encoding))

    def apply(self, change: TextDocumentContentChangePartial, encoding: Encoding) -> None:
        """Move along with a change; text that is typed at either edge stays outside."""
        first = Spot(change.range.start.line, change.range.start.character)
        last = Spot(change.range.end.line, change.range.end.character)
        first, last = min(first, last), max(first, last)
        new = _end_of(first, change.text, encoding)
        if self.start >= last:
            self.start = _moved(self.start, last, new)
        elif self.start > first:
            self.start = first
        if self.end > first:
            self.end = _moved(self.end, last, new) if self.end >= last else new
        self.end = max(self.start, self.end)

    def text_in(self, snapshot: Snapshot) -> str:
        """What stands there now."""
        start, end = (Position(line=spot.line, character=spot.character) for spot in (self.start, self.end))
        return snapshot.text[snapshot.offset_at(start) : snapshot.offset_at(end)]


def whole_change(old: Snapshot, new: Snapshot) -> TextDocumentContentChangePartial:
    """The lines in which two versions of a document differ, for editors that send the whole text."""
    from lsprotocol.types import Range

    before, after = old.lines, new.lines
    limit, head = min(len(before), len(after)), 0
    while head < limit and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < limit - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    last = len(before) - tail
    end = Position(line=last, character=0)
    text = "".join(after[head : len(after) - tail])
    if not tail:
        content = old.content(last - 1)
        end = Position(line=last - 1, character=character_at(content, len(content), old.encoding))
    return TextDocumentContentChangePartial(range=Range(start=Position(line=head, character=0), end=end), text=text)


def share_kept(accepted: str, present: str) -> float:
    """The share of the accepted characters that are still there, in their order; 1 is all of them."""
    if not accepted or accepted in present:
        return 1.0
    old: Sequence[str] = accepted
    new: Sequence[str] = present
    if len(accepted) > MAX_COMPARED or len(present) > MAX_COMPARED:
        old, new = accepted.splitlines(keepends=True), present.splitlines(keepends=True)
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    return sum(len("".join(old[block.a : block.a + block.size])) for block in blocks) / len(accepted)


def _end_of(start: Spot, text: str, encoding: Encoding) -> Spot:
    lines = _LINE_END.split(text)
    length = character_at(lines[-1], len(lines[-1]), encoding)
    return Spot(start.line + len(lines) - 1, length + (start.character if len(lines) == 1 else 0))


def _moved(spot: Spot, last: Spot, new: Spot) -> Spot:
    """A spot behind a change that ended at ``last`` and ends at ``new`` now."""
    character = new.character + spot.character - last.character if spot.line == last.line else spot.character
    return Spot(spot.line + new.line - last.line, character)
