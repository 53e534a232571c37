"""What a file declares, as signatures without bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsp_server.syntax.definitions import is_definition, kind_of, name_of, outermost_wrapper
from lsp_server.syntax.tree import SyntaxTree

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_WHOLE_LINES = 24  # of a struct or an interface, whose fields are its signature
MAX_FIELD_CHARACTERS = 160
_EXPRESSION_STATEMENT = "expression_statement"


@dataclass(frozen=True, kw_only=True)
class Declaration:
    r"""One name that a file declares.

    ``signature`` is source text without the body, with ``\n`` line ends and its own indentation taken off.
    ``container`` is the name of the class, trait or module around it; empty at the top level. Lines count from 0.
    """

    name: str
    kind: str
    signature: str
    container: str
    first_line: int
    end_line: int


def declarations(tree: SyntaxTree) -> list[Declaration]:
    """All declarations outside of function bodies, in reading order."""
    found: list[Declaration] = []
    _collect(tree, tree.root, "", found)
    return found


def _collect(tree: SyntaxTree, node: Node, container: str, found: list[Declaration]) -> None:
    for child in node.named_children:
        if is_definition(tree, child):
            declaration = _declare(tree, child, container)
            if declaration.name:
                found.append(declaration)
            body = child.child_by_field_name("body")
            if body is not None and child.type not in tree.kinds.functions | tree.kinds.whole:
                _collect(tree, body, declaration.name or container, found)
        elif child.type in tree.kinds.fields:
            before = len(found)
            if child.type == "type_definition":
                _collect(tree, child, container, found)
            if len(found) == before:
                found.extend(_fields(tree, child, container))
        elif child.type in tree.kinds.transparent:
            _collect(tree, child, container, found)
        elif child.type == _EXPRESSION_STATEMENT:
            inner = child.named_children[0] if child.named_children else None
            if inner is not None and inner.type in tree.kinds.fields:
                found.extend(_fields(tree, inner, container))
        elif child.type == "variable_declarator":
            found.extend(_fields(tree, child, container))


def _declare(tree: SyntaxTree, node: Node, container: str) -> Declaration:
    whole = outermost_wrapper(tree, node)
    return Declaration(
        name=name_of(tree, node),
        kind=kind_of(tree, node),
        signature=_signature(tree, node, whole),
        container=container,
        first_line=whole.start_point[0],
        end_line=whole.end_point[0] + bool(whole.end_point[1]),
    )


def _signature(tree: SyntaxTree, node: Node, whole: Node) -> str:
    num_lines = whole.end_point[0] - whole.start_point[0] + 1
    body = node.child_by_field_name("body")
    value = node.child_by_field_name("value")
    if body is None and value is not None and node.type in tree.kinds.functions:
        body = value.child_by_field_name("body")
    if body is None and node.type == "macro_definition":
        body = next((child for child in node.named_children if child.type == "macro_rule"), None)
    if body is None or (node.type in tree.kinds.whole and num_lines <= MAX_WHOLE_LINES):
        return _dedent(tree, whole, whole.end_byte)
    head = _dedent(tree, whole, body.start_byte).rstrip().removesuffix("{").rstrip()
    if tree.kinds.has_braces:
        return f"{head} {{ ... }}"
    return f"{head.removesuffix(':').rstrip()}: ..."


def _fields(tree: SyntaxTree, node: Node, container: str) -> list[Declaration]:
    """A variable, constant, field or prototype: its line, cut where its value becomes long."""
    names = [tree.text_of(name) for name in node.children_by_field_name("name")]
    if not names and (left := node.child_by_field_name("left")) is not None and left.type == "identifier":
        names = [tree.text_of(left)]
    if not names and (declared := node.child_by_field_name("property")) is not None:
        names = [tree.text_of(declared)]
    names = names or [name_of(tree, child) for child in _declarators(node)] or [name_of(tree, node)]
    # In Python a value assigned inside of a class is a field; in scripts the statement holds the keyword.
    whole = node.parent if node.parent is not None and node.parent.type in tree.kinds.wrappers else node
    text = " ".join(_dedent(tree, whole, whole.end_byte).split())
    if len(text) > MAX_FIELD_CHARACTERS:
        head, separator, _ = text.partition("=")
        text = f"{head.rstrip()} = ..." if separator and len(head) < MAX_FIELD_CHARACTERS else ""
    if not text:
        return []
    return [
        Declaration(
            name=name, kind="field", signature=text, container=container,
            first_line=whole.start_point[0],
            end_line=whole.end_point[0] + bool(whole.end_point[1]),
        )
        for name in names if name.isidentifier()
    ]  # fmt: skip


def _declarators(node: Node) -> list[Node]:
    return [child for child in node.named_children if child.type == "variable_declarator"]


def _dedent(tree: SyntaxTree, node: Node, end_byte: int) -> str:
    """Source from the beginning of a node, with the indentation of its first line taken off the others."""
    text = tree.source[node.start_byte : end_byte].decode(errors="replace")
    line = tree.lines[node.start_point[0]]
    indent = line[: len(line) - len(line.lstrip())]
    first, *others = text.split("\n")
    return "\n".join([first, *(other.removeprefix(indent) for other in others)])
