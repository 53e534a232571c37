"""A Python file with its syntax tree, and the character positions of its nodes."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

from train.data.synthetic.patches import Patch, Span

Function = ast.FunctionDef | ast.AsyncFunctionDef
Located = ast.expr | ast.stmt | ast.arg | ast.keyword | ast.excepthandler | ast.alias
Node = TypeVar("Node", bound=ast.AST)


def parse_python(text: str) -> ast.Module | None:
    """The syntax tree, or None where Python would refuse the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
            # Compiling finds what parsing lets through: return outside a function, one parameter name twice.
            compile(tree, "<example>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    return tree


class PythonSource:
    """A parsed file. Positions are characters of ``text``, never bytes or columns.

    Args:
        text: with line feeds as line ends, and one at the end of the file.
        tree: what :func:`parse_python` made of it.
    """

    def __init__(self, text: str, tree: ast.Module) -> None:
        self.text, self.tree = text, tree
        lines = text.split("\n")
        self._line_starts = [0, *accumulate(len(line) + 1 for line in lines)]
        self._wide_lines = {number: line for number, line in enumerate(lines) if not line.isascii()}

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The parent of every node but the module."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def _nodes_by_type(self) -> dict[type[ast.AST], list[ast.AST]]:
        found: dict[type[ast.AST], list[ast.AST]] = {}
        for node in ast.walk(self.tree):
            found.setdefault(type(node), []).append(node)
        return found

    def nodes(self, kind: type[Node]) -> list[Node]:
        """All nodes of exactly that type, outer ones first; a fresh list."""
        return list(self._nodes_by_type.get(kind, ()))  # type: ignore[arg-type]

    @cached_property
    def functions(self) -> list[Function]:
        """All functions and methods."""
        return [*self.nodes(ast.FunctionDef), *self.nodes(ast.AsyncFunctionDef)]

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """All classes, outer ones first."""
        return self.nodes(ast.ClassDef)

    @cached_property
    def blocks(self) -> list[list[ast.stmt]]:
        """All runs of statements of one indentation."""
        found: list[list[ast.stmt]] = []
        for node in ast.walk(self.tree):
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                    found.append(block)
        return found

    @cached_property
    def identifiers(self) -> frozenset[str]:
        """Every name of any kind in the file: a new name outside of these collides with nothing."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            for name in ("id", "attr", "arg", "name", "asname", "module"):
                value = getattr(node, name, None)
                if isinstance(value, str):
                    found.update(value.split("."))
            if isinstance(node, ast.Global | ast.Nonlocal):
                found.update(node.names)
        return frozenset(found)

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """Start and text of every comment, in order."""
        return [
            (self._line_starts[token.start[0] - 1] + token.start[1], token.string)
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline)
            if token.type == tokenize.COMMENT
        ]

    def start(self, node: Located) -> int:
        """Where the node begins, decorators not counted."""
        return self._position(node.lineno, node.col_offset)

    def end(self, node: Located) -> int:
        """Where the node ends."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._position(node.end_lineno, node.end_col_offset)

    def segment(self, node: Located) -> str:
        """The text of the node, decorators not counted."""
        return self.text[self.start(node) : self.end(node)]

    def replace(self, node: Located, text: str) -> Patch:
        """The patch that puts a text in the node's place."""
        return Patch(self.start(node), self.end(node), text)

    def lines(self, node: ast.stmt | ast.excepthandler) -> Span:
        """The node's whole lines, decorators and the last line's end included."""
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        assert node.end_lineno is not None
        return Span(self._line_starts[first - 1], min(self._line_starts[node.end_lineno], len(self.text)))

    def block_lines(self, block: list[ast.stmt]) -> Span:
        """The whole lines of consecutive statements."""
        return Span(self.lines(block[0]).start, self.lines(block[-1]).end)

    def line_of(self, position: int) -> Span:
        """The whole line around a character."""
        start = self.text.rfind("\n", 0, position) + 1
        return Span(start, self.text.find("\n", position) + 1 or len(self.text))

    def cover(self, span: Span) -> Span:
        """The whole lines over a span; an insertion at the start of a line touches no line."""
        start = self.line_of(span.start).start
        if span.start == span.end == start:
            return span
        return Span(start, self.line_of(max(span.end - 1, span.start)).end)

    def indent(self, node: ast.stmt) -> str:
        """What stands before the statement on its line."""
        start = self.start(node)
        return self.text[self.line_of(start).start : start]

    def has_own_lines(self, node: ast.stmt | ast.excepthandler) -> bool:
        """Whether nothing but blanks and a comment share the statement's lines."""
        span = self.lines(node)
        head = self.text[self.line_of(self.start(node)).start : self.start(node)]
        tail = self.text[self.end(node) : span.end].strip()
        return not head.strip() and (not tail or tail.startswith("#"))

    def has_comment(self, span: Span) -> bool:
        """Whether a comment begins inside."""
        return any(span.start <= start < span.end for start, _ in self.comments)

    def function_of(self, node: ast.AST) -> Function | None:
        """The innermost function around the node."""
        return next((outer for outer in self.ancestors(node) if isinstance(outer, Function)), None)

    def class_of(self, function: Function) -> ast.ClassDef | None:
        """The class whose method the function is."""
        parent = self.parents.get(function)
        return parent if isinstance(parent, ast.ClassDef) else None

    def is_inside(self, node: ast.AST, outer: ast.AST) -> bool:
        """Whether the node is a part of the other."""
        return any(ancestor is outer for ancestor in self.ancestors(node))

    def is_in_fstring(self, node: ast.AST) -> bool:
        """Whether the node stands in an f-string, where Python 3.11 does not know positions for sure."""
        return any(isinstance(ancestor, ast.JoinedStr) for ancestor in self.ancestors(node))

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def reindent(self, span: Span, change: int) -> str | None:
        """The whole lines of a span, moved right (or left, below 0) by so many blanks.

        Returns:
            None where that cannot be done without changing a string, or where tabs indent.
        """
        text = self.text[span.start : span.end]
        if "\t" in text or self._has_long_string(span):
            return None
        lines = text.split("\n")
        if change < 0 and any(line.strip() and len(line) - len(line.lstrip()) < -change for line in lines):
            return None
        if change < 0:
            return "\n".join(line[-change:] if line.strip() else line for line in lines)
        return "\n".join(" " * change + line if line.strip() else line for line in lines)

    def _has_long_string(self, span: Span) -> bool:
        return any(first < span.end and span.start < last for first, last in self._long_strings)

    @cached_property
    def _long_strings(self) -> list[tuple[int, int]]:
        """Positions of the string tokens that go over several lines."""
        return [
            (self.start(node), self.end(node))
            for node in ast.walk(self.tree)
            if (
                isinstance(node, ast.JoinedStr)
                or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
            )
            and node.lineno != node.end_lineno
        ]

    def _position(self, line: int, column: int) -> int:
        wide = self._wide_lines.get(line - 1)
        if wide is not None:
            column = len(wide.encode()[:column].decode(errors="replace"))
        return self._line_starts[line - 1] + column
