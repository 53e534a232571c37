r"""Exact incremental text sync.

pygls splits lines where ``str.splitlines`` does, so a form feed or U+2028 shifts every later change and the server's
copy differs from the editor's. Here only ``\n``, ``\r\n`` and ``\r`` end a line, as LSP says.

A document is a list of lines: a key stroke in a file of 100,000 lines rebuilds one string and moves one slice of the
list, both in C.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from lsprotocol.types import (
    Position,
    TextDocumentContentChangeEvent,
    TextDocumentContentChangePartial,
)

from lsp_server.positions import Encoding, cut, join_surrogates
from lsp_server.snapshot import Snapshot


def split_lines(text: str) -> list[str]:
    """Lines with their terminators and a last line without one: ``"".join`` of the result is ``text``."""
    lines = io.StringIO(text, newline="").readlines()  # newline="" splits at \n, \r\n and \r only and keeps them
    if not lines or lines[-1][-1] in "\r\n":
        lines.append("")
    return lines


class Document:
    """The server's copy of an open document."""

    def __init__(self, *, uri: str, version: int, language: str, text: str, encoding: Encoding) -> None:
        self.uri = uri
        self.version = version
        self.language = language
        self._encoding = encoding
        self._lines = split_lines(join_surrogates(text))
        self._snapshot: Snapshot | None = None

    def apply(self, changes: Sequence[TextDocumentContentChangeEvent], version: int) -> None:
        """Apply the changes of one didChange in their order."""
        self._snapshot = None
        for change in changes:
            if isinstance(change, TextDocumentContentChangePartial):
                self._replace(change.range.start, change.range.end, change.text)
            else:
                self._lines = split_lines(join_surrogates(change.text))
        self.version = version

    def snapshot(self) -> Snapshot:
        """The present text, frozen."""
        if self._snapshot is None:
            self._snapshot = Snapshot(
                uri=self.uri,
                version=self.version,
                language=self.language,
                encoding=self._encoding,
                lines=tuple(self._lines),
            )
        return self._snapshot

    def _replace(self, start: Position, end: Position, text: str) -> None:
        if (end.line, end.character) < (start.line, start.character):
            start, end = end, start
        first, head, _ = self._cut(start)
        last, _, tail = self._cut(end)
        if not head and first > 0 and self._lines[first - 1].endswith("\r"):
            # The new text may begin with \n and so become one terminator with the \r before it.
            first -= 1
            head = self._lines[first]
        new = split_lines(join_surrogates(head + text + tail))
        if last < len(self._lines) - 1:
            new.pop()  # the tail ends with the terminator of line `last`; what follows it is line `last` + 1
        self._lines[first : last + 1] = new

    def _cut(self, position: Position) -> tuple[int, str, str]:
        """Line number and the two sides of a position in its line; the right side keeps the terminator."""
        if position.line >= len(self._lines):
            return len(self._lines) - 1, self._lines[-1], ""
        line = self._lines[position.line]
        content = line.rstrip("\r\n")
        head, tail = cut(content, position.character, self._encoding)
        return position.line, head, tail + line[len(content) :]
