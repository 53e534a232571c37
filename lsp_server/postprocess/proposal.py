"""What filters work on: a proposed text, and the place it would go to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lsp_server.postprocess.indent_style import IndentStyle
from lsp_server.snapshot import Point
from lsp_server.syntax.tree import SyntaxTree


@dataclass(frozen=True)
class Syntax:
    """The document's tree without the answer, and where the answer would go."""

    tree: SyntaxTree
    point: Point

    def with_text(self, text: str, num_replaced: int) -> SyntaxTree:
        r"""The tree of the document with ``text`` (``\n`` line ends) in its place."""
        lines, (line, column) = list(self.tree.lines), self.point
        content = lines[line]
        lines[line : line + 1] = f"{content[:column]}{text}{content[column + num_replaced :]}".split("\n")
        return self.tree.parse_again(lines)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a text would be inserted.

    ``head`` is what stands left of the cursor, ``rest`` what stands right of it, ``preceding`` the lines above (the
    nearest last) and ``following`` the lines below. ``may_replace`` is false where the editor dictates the range, so
    closers at the right cannot be replaced. ``syntax`` is None without a grammar.
    """

    rest: str
    following: tuple[str, ...]
    line_end: str
    single_line: bool
    invoked: bool
    may_replace: bool = True
    head: str = ""
    preceding: tuple[str, ...] = ()
    indent_style: IndentStyle = field(default_factory=IndentStyle)
    syntax: Syntax | None = None


@dataclass(frozen=True)
class Proposal:
    """A text and how many characters right of the cursor, on the same line, it replaces."""

    text: str
    num_replaced: int = 0


@dataclass(frozen=True)
class Drop:
    """Nothing is shown, for a reason that is counted."""

    reason: str


Filter = Callable[[Proposal, Place], Proposal | Drop]
