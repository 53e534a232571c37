r"""The syntax tree of a text, in the document's own coordinates.

tree-sitter counts rows by ``\n`` and columns in bytes of UTF-8; a document has other line ends too and counts code
points. So a tree is made from the contents of the document's lines joined by ``\n``: rows are then lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from lsp_server.positions import without_lone_surrogates
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax.grammars import load_grammar
from lsp_server.syntax.node_kinds import KINDS, NodeKinds

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree

# Parsing runs at several megabytes a second: above this a key stroke would wait for it.
MAX_PARSED_CHARACTERS = 1_000_000


class SyntaxTree:
    """A parsed text. Immutable; nodes are those of tree-sitter."""

    def __init__(self, language: str, grammar: Language, lines: Sequence[str], old: tuple[Tree, bytes] | None) -> None:
        from tree_sitter import Parser

        self.language = language
        self.lines = lines
        self.kinds: NodeKinds = KINDS[language]
        self.source = without_lone_surrogates("\n".join(lines)).encode()
        self._grammar = grammar
        # A parser is not safe to share between threads and costs microseconds to make.
        parser = Parser(grammar)
        self._tree = parser.parse(self.source, _edited(old, self.source)) if old else parser.parse(self.source)

    @property
    def root(self) -> Node:
        """The node of the whole text."""
        return self._tree.root_node

    def parse_again(self, lines: Sequence[str]) -> SyntaxTree:
        """The tree of a text that differs in one place; what is the same is not parsed again."""
        return SyntaxTree(self.language, self._grammar, lines, (self._tree, self.source))

    @cached_property
    def _line_starts(self) -> list[int]:
        sizes = (len(line) if line.isascii() else len(without_lone_surrogates(line).encode()) for line in self.lines)
        return list(accumulate((size + 1 for size in sizes), initial=0))

    def byte_at(self, point: Point) -> int:
        """The offset in :attr:`source` of a point."""
        head = self.lines[point.line][: point.column]
        size = len(head) if head.isascii() else len(without_lone_surrogates(head).encode())
        return self._line_starts[point.line] + size

    def point_at(self, row: int, byte_column: int) -> Point:
        """The point of tree-sitter's row and column."""
        if row >= len(self.lines):
            return Point(len(self.lines) - 1, len(self.lines[-1]))
        line = self.lines[row]
        if line.isascii():
            return Point(row, min(byte_column, len(line)))
        raw = without_lone_surrogates(line).encode()
        return Point(row, len(raw[:byte_column].decode(errors="ignore")))

    def start_of(self, node: Node) -> Point:
        """Where a node begins."""
        return self.point_at(*node.start_point)

    def end_of(self, node: Node) -> Point:
        """Where a node ends."""
        return self.point_at(*node.end_point)

    def text_of(self, node: Node) -> str:
        r"""The source of a node, with ``\n`` as line end."""
        return self.source[node.start_byte : node.end_byte].decode(errors="replace")

    def smallest_at(self, point: Point) -> Node:
        """The smallest node that holds the character right of ``point``."""
        offset = self.byte_at(point)
        return self.root.descendant_for_byte_range(offset, offset) or self.root


def ancestors(node: Node | None) -> Iterator[Node]:
    """A node and what stands around it, from the inside out."""
    while node is not None:
        yield node
        node = node.parent


def parse(lines: Sequence[str], language: str) -> SyntaxTree | None:
    """The tree of lines without terminators; None without a grammar, or if the text is too long to parse in time."""
    grammar = load_grammar(language)
    if grammar is None or not is_short_enough(lines):
        return None
    return SyntaxTree(language, grammar, lines, None)


def is_short_enough(lines: Sequence[str]) -> bool:
    """Whether a text may be parsed while somebody waits."""
    return sum(map(len, lines)) + len(lines) <= MAX_PARSED_CHARACTERS


def parse_snapshot(snapshot: Snapshot) -> SyntaxTree | None:
    """The tree of a document; see :func:`parse`."""
    return parse(contents_of(snapshot), snapshot.language)


def contents_of(snapshot: Snapshot) -> list[str]:
    """The lines of a document without their terminators."""
    return [line.rstrip("\r\n") for line in snapshot.lines]


def _edited(old: tuple[Tree, bytes], new: bytes) -> Tree:
    """A copy of the old tree that knows which bytes changed."""
    tree, before = old
    start = _common_length(before, new)
    limit = min(len(before), len(new)) - start
    tail = _common_length(before[len(before) - limit :][::-1], new[len(new) - limit :][::-1]) if limit else 0
    old_end, new_end = len(before) - tail, len(new) - tail
    edited = tree.copy()
    edited.edit(
        start, old_end, new_end, _byte_point(before, start), _byte_point(before, old_end), _byte_point(new, new_end)
    )
    return edited


def _common_length(a: bytes, b: bytes) -> int:
    """The length of the common beginning, by halving: each comparison is one of C's."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _byte_point(source: bytes, offset: int) -> tuple[int, int]:
    start = source.rfind(b"\n", 0, offset) + 1
    return source.count(b"\n", 0, offset), offset - start
