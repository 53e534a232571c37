"""Syntax nodes of a file, by tree-sitter: expressions, statements and bodies, as ranges of characters."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

from diffusion_core.errors import ConfigError
from diffusion_core.grammars import GRAMMARS

if TYPE_CHECKING:
    from tree_sitter import Node, Parser


class NodeKind(StrEnum):
    """What a hole replaces."""

    EXPRESSION = "expression"
    STATEMENT = "statement"
    BODY = "body"


@dataclass(frozen=True)
class NodeRange:
    """``text[start:end]`` is a whole node. Character positions."""

    kind: NodeKind
    start: int
    end: int


_BODIES = frozenset({"block", "statement_block", "compound_statement", "class_body", "declaration_list",
                     "field_declaration_list", "interface_body", "constructor_body"})  # fmt: skip
# Expressions whose node type does not say so.
_EXPRESSIONS = frozenset({
    "call", "attribute", "binary_operator", "boolean_operator", "comparison_operator", "not_operator", "unary_operator",
    "subscript", "list", "dictionary", "set", "tuple", "lambda", "list_comprehension", "dictionary_comprehension",
    "set_comprehension", "generator_expression", "argument_list", "await", "array", "object", "arrow_function",
    "template_string", "string", "composite_literal", "method_invocation", "arguments", "slice",
})  # fmt: skip
_STATEMENT_ENDINGS = ("_statement", "_definition", "_declaration", "_item", "decorated_definition")
_MIN_CHARACTERS = 4


@cache
def _parser(language: str) -> Parser:
    from tree_sitter import Language, Parser

    module, function = GRAMMARS[language]
    return Parser(Language(getattr(importlib.import_module(module), function)()))


def find_nodes(text: str, language: str) -> list[NodeRange]:
    """Expressions, statements and bodies of a file, in reading order; nodes with syntax errors are left out.

    Raises:
        ConfigError: there is no grammar for the language.
    """
    if language not in GRAMMARS:
        raise ConfigError(f"no grammar for the language {language!r}; known are {', '.join(sorted(GRAMMARS))}")
    raw = text.encode()
    tree = _parser(language).parse(raw)
    positions = None if len(raw) == len(text) else _character_positions(text)
    found: list[NodeRange] = []
    stack = [tree.root_node]
    while stack:
        node = stack.pop()
        kind = _kind_of(node)
        if kind is not None and not node.has_error:
            start, end = node.start_byte, node.end_byte
            if positions is not None:
                start, end = positions[start], positions[end]
            if end - start >= _MIN_CHARACTERS:
                found.append(_trim(NodeRange(kind, start, end), text))
        stack.extend(reversed(node.named_children))
    return found


def has_syntax_error(text: str, language: str) -> bool:
    """Whether the grammar rejects any part of the text."""
    return _parser(language).parse(text.encode()).root_node.has_error


def _kind_of(node: Node) -> NodeKind | None:
    if node.parent is None:
        return None
    if node.type in _BODIES:
        return NodeKind.BODY
    if node.type in _EXPRESSIONS or node.type.endswith("_expression"):
        # An expression that is a whole statement is one already.
        return None if node.parent.type == "expression_statement" else NodeKind.EXPRESSION
    return NodeKind.STATEMENT if node.type.endswith(_STATEMENT_ENDINGS) else None


def _trim(found: NodeRange, text: str) -> NodeRange:
    """A body in braces without them: what a person types between them."""
    inner = text[found.start : found.end]
    if found.kind is NodeKind.BODY and len(inner) > 8 and inner[0] == "{" and inner[-1] == "}":
        return NodeRange(found.kind, found.start + 1, found.end - 1)
    return found


def _character_positions(text: str) -> list[int]:
    """For every byte of the encoded text, and its end, the character it belongs to."""
    positions: list[int] = []
    for number, character in enumerate(text):
        positions.extend([number] * len(character.encode()))
    positions.append(len(text))
    return positions
