"""A document as it was at one version. Handlers take one before their first ``await`` and never see it change."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from lsprotocol.types import Position, Range

from lsp_server.positions import Encoding, character_at, column_at


class Point(NamedTuple):
    """A place in a document: line, and column in code points; both count from 0."""

    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    r"""Text of ``uri`` at ``version``, as lines that keep their terminators (\n, \r\n or \r; nothing else is one).

    There is always a last line without a terminator, which may be empty; ``"".join(lines)`` is the text.
    ``preceding`` are the contents of the lines that the model reads above the text though they are no part of it: the
    earlier cells of a notebook.
    """

    uri: str
    version: int
    language: str
    encoding: Encoding
    lines: tuple[str, ...]
    preceding: tuple[str, ...] = ()

    @cached_property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.lines)

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(accumulate(map(len, self.lines[:-1]), initial=0))

    def content(self, line: int) -> str:
        """A line without its terminator."""
        return self.lines[line].rstrip("\r\n")

    @property
    def end(self) -> Point:
        """The end of the document."""
        return Point(len(self.lines) - 1, len(self.lines[-1]))

    def point_at(self, position: Position) -> Point:
        """The place an editor means: past the end of a line is its end, past the last line the end of the document."""
        if position.line >= len(self.lines):
            return self.end
        return Point(position.line, column_at(self.content(position.line), position.character, self.encoding))

    def position_at(self, point: Point) -> Position:
        """The place in the editor's units."""
        content = self.content(point.line)
        return Position(line=point.line, character=character_at(content, point.column, self.encoding))

    def range_between(self, start: Point, end: Point) -> Range:
        """The range in the editor's units."""
        return Range(start=self.position_at(start), end=self.position_at(end))

    def with_text(self, start: Point, end: Point, text: str) -> tuple[Snapshot, Point]:
        """The document as it will be when ``text`` has replaced a range, and where the text then ends."""
        from lsp_server.text_sync import split_lines

        head, tail = self.lines[start.line][: start.column], self.lines[end.line][end.column :]
        new = split_lines(head + text + tail)
        if end.line < len(self.lines) - 1:
            new.pop()  # the tail ends with a terminator: what follows it is a line of its own
        before = split_lines(head + text)
        lines = (*self.lines[: start.line], *new, *self.lines[end.line + 1 :])
        return replace(self, lines=lines), Point(start.line + len(before) - 1, len(before[-1]))

    def offset_at(self, position: Position) -> int:
        """Code points before the position."""
        point = self.point_at(position)
        return self._starts[point.line] + point.column

    def position_from_offset(self, offset: int) -> Position:
        """The position before the code point at ``offset``; an offset inside a terminator means before it."""
        offset = max(0, min(offset, self._starts[-1] + len(self.lines[-1])))
        line = bisect_right(self._starts, offset) - 1
        column = min(offset - self._starts[line], len(self.content(line)))
        return self.position_at(Point(line, column))
