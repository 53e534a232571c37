"""A file of another language with its tree-sitter tree, in the terms the rewrites use."""

from __future__ import annotations

import importlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache, cached_property
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING

from diffusion_core.grammars import GRAMMARS
from train.data.synthetic.patches import Patch, Span
from train.data.synthetic.regions import Region, widen

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

FUNCTIONS = frozenset({
    "function_declaration", "generator_function_declaration", "method_definition", "method_declaration",
    "function_item", "function_definition", "constructor_declaration",
})  # fmt: skip
CLASSES = frozenset({
    "class_declaration", "impl_item", "struct_item", "enum_item", "trait_item", "interface_declaration",
    "type_declaration", "class_specifier", "struct_specifier",
})  # fmt: skip
_LISTS = frozenset({
    "program", "source_file", "translation_unit", "statement_block", "block", "compound_statement", "class_body",
    "declaration_list", "field_declaration_list", "constructor_body", "interface_body",
})  # fmt: skip
COMMENTS = frozenset({"comment", "line_comment", "block_comment"})


def has_grammar(language: str) -> bool:
    """Whether files of that language can be read; Python has rewrites of its own (``python/``)."""
    return language in GRAMMARS and language != "python"


def parse_tree(text: str, language: str) -> TreeSource | None:
    """The parsed file; None where the grammar rejects any part of it."""
    source = TreeSource(text, language)
    return None if source.root.has_error else source


@cache
def _parser(language: str) -> Parser:
    from tree_sitter import Language, Parser

    module, function = GRAMMARS[language]
    return Parser(Language(getattr(importlib.import_module(module), function)()))


class TreeSource:
    """A parsed file. Positions are characters of ``text``; the tree itself counts bytes."""

    def __init__(self, text: str, language: str) -> None:
        self.text, self.language = text, language
        raw = text.encode()
        self.root = _parser(language).parse(raw).root_node
        self._starts = None if len(raw) == len(text) else [0, *accumulate(len(char.encode()) for char in text)]

    @cached_property
    def nodes(self) -> list[Node]:
        """All named nodes in reading order."""
        return list(self.walk(self.root))

    @cached_property
    def functions(self) -> list[Node]:
        """All functions and methods that have a name and a body."""
        return [
            node
            for node in self.nodes
            if node.type in FUNCTIONS and self.name_of(node) and node.child_by_field_name("body") is not None
        ]

    @cached_property
    def identifiers(self) -> frozenset[str]:
        """Every identifier in the file."""
        return frozenset(self.segment(node) for node in self.nodes if node.type.endswith("identifier"))

    def walk(self, node: Node) -> Iterator[Node]:
        """The node and all named nodes inside, in reading order."""
        pending = [node]
        while pending:
            current = pending.pop()
            yield current
            pending.extend(reversed(current.named_children))

    def code_tokens(self, first_line: int, last_line: int) -> list[str]:
        """The texts of the leaves on some lines (from 0), comments left out."""
        found: list[str] = []
        pending = [self.root]
        while pending:
            node = pending.pop()
            if node.type in COMMENTS or node.end_point[0] < first_line or node.start_point[0] > last_line:
                continue
            if not node.children:
                found.append(self.segment(node))
            pending.extend(reversed(node.children))
        return found

    def span(self, node: Node) -> Span:
        """The characters of the node."""
        return Span(self._position(node.start_byte), self._position(node.end_byte))

    def segment(self, node: Node) -> str:
        """The text of the node."""
        span = self.span(node)
        return self.text[span.start : span.end]

    def replace(self, node: Node, text: str) -> Patch:
        """The patch that puts a text in the node's place."""
        span = self.span(node)
        return Patch(span.start, span.end, text)

    def name_of(self, node: Node) -> str:
        """What the node declares; empty where it has no plain name."""
        name = node.child_by_field_name("name")
        if name is None:  # C: the name sits inside the declarator
            declarator = node.child_by_field_name("declarator")
            while declarator is not None and (inner := declarator.child_by_field_name("declarator")) is not None:
                declarator = inner
            name = declarator
        return self.segment(name) if name is not None and name.type.endswith("identifier") else ""

    def lines(self, span: Span) -> Span:
        """The whole lines over a span."""
        start = self.text.rfind("\n", 0, span.start) + 1
        last = max(span.end - 1, span.start)
        return Span(start, self.text.find("\n", last) + 1 or len(self.text))

    def cover(self, span: Span) -> Span:
        """The whole lines over a span; an insertion at the start of a line touches no line."""
        is_between = span.start == span.end and not self.indent(span.start)
        return span if is_between else self.lines(span)

    def indent(self, position: int) -> str:
        """What stands before a position on its line."""
        return self.text[self.text.rfind("\n", 0, position) + 1 : position]

    def find_regions(self, changed: Span, generator: Random) -> list[Region]:
        """The regions that hold all changed characters, largest first."""
        regions = [Region(Span(0, len(self.text)), "file")]
        block, node = self.root, self.root
        while True:
            inner = next((child for child in node.named_children if self._holds(child, changed)), None)
            if inner is None:
                break
            node = inner
            if node.type in FUNCTIONS or node.type in CLASSES:
                regions.append(Region(self.lines(self.span(node)), "function" if node.type in FUNCTIONS else "class"))
            if node.type in _LISTS:
                block = node
        spans = [self.lines(self.span(child)) for child in block.named_children]
        return [*regions, Region(widen(spans, self.cover(changed), generator), "lines")]

    def _holds(self, node: Node, changed: Span) -> bool:
        """Whether the change lies inside the node; right at its edge does not count where nothing is replaced."""
        span = self.span(node)
        if changed.start == changed.end:
            return span.start < changed.start < span.end
        return self.lines(span).contains(changed) and span.overlaps(changed)

    def _position(self, byte: int) -> int:
        return byte if self._starts is None else bisect_right(self._starts, byte) - 1
