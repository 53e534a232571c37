"""Pieces of open and recently closed documents that are like the text around the cursor.

Likeness is the Jaccard index of the names in two windows of lines: cheap, and about as good as anything for code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import names_in

WINDOW_LINES = 24
STRIDE = 12
MIN_LIKENESS = 0.25
MIN_NAMES = 5
MAX_PIECES = 2
MAX_DOCUMENTS = 20
MAX_LINES = 3000  # of a document that is looked at


@dataclass(frozen=True)
class Piece:
    """Lines ``first_line`` to ``end_line`` (not included) of another document."""

    uri: str
    first_line: int
    end_line: int
    text: str
    likeness: float


@dataclass(frozen=True)
class _Windows:
    version: int
    names: tuple[tuple[int, frozenset[str]], ...]


class SimilarPieces:
    """Keeps the names of windows by document and version."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Windows] = OrderedDict()

    def find(self, snapshot: Snapshot, point: Point, others: Iterable[Snapshot]) -> list[Piece]:
        """The pieces most like the lines before ``point``, the likest first; at most one a document."""
        contents = [line.rstrip("\r\n") for line in snapshot.lines[max(0, point.line - WINDOW_LINES) : point.line + 3]]
        wanted = frozenset(names_in(contents, 0, len(contents)))
        if len(wanted) < MIN_NAMES:
            return []
        best: list[Piece] = []
        for other in others:
            if other.uri == snapshot.uri or other.language != snapshot.language:
                continue
            scored = max(((_likeness(wanted, names), first) for first, names in self._windows(other)), default=(0.0, 0))
            if scored[0] >= MIN_LIKENESS:
                best.append(_piece(other, scored[1], scored[0]))
        return sorted(best, key=lambda piece: -piece.likeness)[:MAX_PIECES]

    def _windows(self, snapshot: Snapshot) -> tuple[tuple[int, frozenset[str]], ...]:
        known = self._known.get(snapshot.uri)
        if known is None or known.version != snapshot.version:
            known = _Windows(snapshot.version, tuple(_cut(snapshot)))
            self._known[snapshot.uri] = known
            while len(self._known) > MAX_DOCUMENTS:
                self._known.popitem(last=False)
        self._known.move_to_end(snapshot.uri)
        return known.names


def _cut(snapshot: Snapshot) -> Iterator[tuple[int, frozenset[str]]]:
    lines = [line.rstrip("\r\n") for line in snapshot.lines[:MAX_LINES]]
    for first in range(0, max(1, len(lines) - STRIDE), STRIDE):
        names = frozenset(names_in(lines, first, first + WINDOW_LINES))
        if len(names) >= MIN_NAMES:
            yield first, names


def _likeness(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _piece(snapshot: Snapshot, first: int, likeness: float) -> Piece:
    end = min(len(snapshot.lines), first + WINDOW_LINES)
    text = "\n".join(snapshot.content(line) for line in range(first, end)).strip("\n")
    return Piece(snapshot.uri, first, end, text, likeness)
