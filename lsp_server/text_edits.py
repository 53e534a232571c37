"""From an edited selection to the smallest versioned change of its document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from lsprotocol.types import (
    OptionalVersionedTextDocumentIdentifier,
    Position,
    Range,
    TextDocumentEdit,
    TextEdit,
    WorkspaceEdit,
)

from lsp_server.snapshot import Point, Snapshot

MAX_NEIGHBOURS = 3  # lines around a selection that help to find it again


@dataclass(frozen=True)
class Lines:
    """Lines ``first`` to ``end`` (not included) of a document."""

    first: int
    end: int


@dataclass(frozen=True)
class Hunk:
    """One place of a change: these lines of the old document become ``text``."""

    lines: Lines
    text: str


def whole_lines(snapshot: Snapshot, wanted: Range) -> Lines:
    """The lines a selection touches; a selection that ends before the first column of a line does not touch it."""
    start, end = snapshot.point_at(wanted.start), snapshot.point_at(wanted.end)
    start, end = min(start, end), max(start, end)
    last = end.line - 1 if end.column == 0 and end.line > start.line else end.line
    return Lines(start.line, last + 1)


def selected_text(snapshot: Snapshot, lines: Lines) -> str:
    r"""The text of lines, with ``\n`` as line end."""
    ends = snapshot.lines[lines.end - 1] != snapshot.content(lines.end - 1)
    return "\n".join(snapshot.content(line) for line in range(lines.first, lines.end)) + ("\n" if ends else "")


def replacement_lines(snapshot: Snapshot, lines: Lines, text: str, line_end: str) -> list[str]:
    r"""``text`` (with ``\n``) as document lines; the last one ends as the selection's last line does.

    In a file of mixed ends a line that stays, or stands in another's place, ends as that one did.
    """
    contents = text.removesuffix("\n").split("\n")
    old = [snapshot.content(line) for line in range(lines.first, lines.end)]
    old_ends = [snapshot.lines[lines.first + index][len(content) :] for index, content in enumerate(old)]
    ends = [line_end] * (len(contents) - 1) + [old_ends[-1]]
    if any(end not in ("", line_end) for end in old_ends):
        for _, i1, i2, j1, j2 in SequenceMatcher(None, old, contents, autojunk=False).get_opcodes():
            for i, j in zip(range(i1, i2), range(j1, min(j2, len(contents) - 1)), strict=False):
                ends[j] = old_ends[i] or line_end
    return [content + end for content, end in zip(contents, ends, strict=True)]


def hunks_between(snapshot: Snapshot, lines: Lines, new: Sequence[str]) -> tuple[Hunk, ...]:
    """The changed places only, in document order."""
    old = snapshot.lines[lines.first : lines.end]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return tuple(
        Hunk(Lines(lines.first + i1, lines.first + i2), "".join(new[j1:j2]))
        for tag, i1, i2, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
    )


def shift_lines(old: Snapshot, new: Snapshot, lines: Lines) -> int | None:
    """By how many lines the selection moved from ``old`` to ``new``; None if the change touches it (stale).

    The text decides, not the version: a document that was closed and opened again counts from 1 anew.
    """
    before, after = old.lines, new.lines
    if before == after:
        return 0
    same_head = 0
    limit = min(len(before), len(after))
    while same_head < limit and before[same_head] == after[same_head]:
        same_head += 1
    same_tail = 0
    while same_tail < limit - same_head and before[-1 - same_tail] == after[-1 - same_tail]:
        same_tail += 1
    if lines.end <= same_head:
        return 0
    if lines.first >= len(before) - same_tail:
        return len(after) - len(before)
    return _shift_of_block(before, after, lines)


def _shift_of_block(before: Sequence[str], after: Sequence[str], lines: Lines) -> int | None:
    """The shift of lines with changes above and below them: where they are, with some of their neighbours, again.

    Only a place that cannot be another one counts: the block must be unique in both texts.
    """
    for num_around in range(MAX_NEIGHBOURS, -1, -1):
        first, end = max(0, lines.first - num_around), min(len(before), lines.end + num_around)
        block = tuple(before[first:end])
        places = _places_of(block, after)
        if len(places) == 1 and len(_places_of(block, before)) == 1:
            return places[0] - first
    return None


def _places_of(block: tuple[str, ...], lines: Sequence[str]) -> list[int]:
    last = len(lines) - len(block)
    return [at for at in range(last + 1) if lines[at] == block[0] and tuple(lines[at : at + len(block)]) == block]


def text_edits(snapshot: Snapshot, hunks: Sequence[Hunk], shift: int = 0) -> list[TextEdit]:
    """LSP edits of ``snapshot``; ``shift`` is how far the hunks' lines moved since they were made."""

    def line_start(line: int) -> Position:
        return snapshot.position_at(Point(line, 0) if line < len(snapshot.lines) else snapshot.end)

    return [
        TextEdit(
            range=Range(start=line_start(hunk.lines.first + shift), end=line_start(hunk.lines.end + shift)),
            new_text=hunk.text,
        )
        for hunk in hunks
    ]


def versioned_edit(snapshot: Snapshot, edits: Sequence[TextEdit]) -> WorkspaceEdit:
    """One change of one document, valid for this version of it only."""
    document = OptionalVersionedTextDocumentIdentifier(uri=snapshot.uri, version=snapshot.version)
    return WorkspaceEdit(document_changes=[TextDocumentEdit(text_document=document, edits=list(edits))])
