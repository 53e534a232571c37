"""The definition around a place: what an edit without a selection means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax.indentation import enclosing_block
from lsp_server.syntax.tree import SyntaxTree, ancestors, contents_of, parse

if TYPE_CHECKING:
    from tree_sitter import Node

_FUNCTION_VALUES = frozenset(
    {"arrow_function", "function_expression", "function", "generator_function", "class"}  # of JavaScript variables
)
_CONDITIONAL = frozenset({"variable_declarator", "field_definition", "public_field_definition"})
_NEED_BODY = frozenset({"struct_specifier", "union_specifier", "enum_specifier", "class_specifier"})


@dataclass(frozen=True, kw_only=True)
class Definition:
    """``first_line`` to ``end_line`` (not included), with decorators, attributes and the comment above it.

    ``kind`` is a word such as function, method, class, struct, interface, type; ``name`` may be empty.
    """

    name: str
    kind: str
    first_line: int
    end_line: int

    @property
    def start(self) -> Point:
        """The beginning of the first line."""
        return Point(self.first_line, 0)


def enclosing_definition(snapshot: Snapshot, point: Point, tree: SyntaxTree | None = None) -> Definition | None:
    """The innermost definition around ``point``; its own lines and those above that belong to it count as inside.

    By syntax where there is a grammar, by keywords and indentation elsewhere. ``tree`` saves parsing again.
    """
    lines = contents_of(snapshot)
    tree = tree or parse(lines, snapshot.language)
    if tree is not None:
        node = definition_node_at(tree, point)
        return describe(tree, node) if node is not None else None
    found = enclosing_block(lines, point.line)
    if found is None:
        return None
    first, end, name, kind = found
    return Definition(name=name, kind=kind, first_line=first, end_line=end)


def definition_node_at(tree: SyntaxTree, point: Point) -> Node | None:
    """The node of the innermost definition around ``point``."""
    line = tree.lines[point.line]
    if line.strip():
        # Before the first character of a line means its first one, behind the last one the last.
        first, last = len(line) - len(line.lstrip()), len(line.rstrip().rstrip(";")) - 1
        point = Point(point.line, max(first, min(point.column, last)))
    node: Node | None = tree.smallest_at(point)
    for around in ancestors(node):
        if around.type in tree.kinds.leading:
            following = _definition_below(tree, around)
            if following is not None:
                return following
        if is_definition(tree, around):
            return around
        if around.type in tree.kinds.wrappers:  # a decorator or a keyword before the definition
            inner = _inside_wrapper(tree, around)
            if inner is not None:
                return inner
    return None


def is_definition(tree: SyntaxTree, node: Node) -> bool:
    """Whether a node defines something; a variable does where its value is a function or a class."""
    if node.type not in tree.kinds.definitions or not node.is_named:
        return False
    if node.type in _CONDITIONAL:
        value = node.child_by_field_name("value")
        return value is not None and value.type in _FUNCTION_VALUES
    if node.type in _NEED_BODY:
        return node.child_by_field_name("body") is not None
    return not (node.type == "module" and node.parent is None)


def outermost_wrapper(tree: SyntaxTree, node: Node) -> Node:
    """The definition with what is written around it: decorators, ``export``, ``template <...>``."""
    while (parent := node.parent) is not None and parent.type in tree.kinds.wrappers:
        if sum(is_definition(tree, child) for child in parent.named_children) > 1:
            break
        node = parent
    return node


def describe(tree: SyntaxTree, node: Node) -> Definition:
    """The definition of a node."""
    whole = outermost_wrapper(tree, node)
    end = tree.end_of(whole)
    return Definition(
        name=name_of(tree, node),
        kind=kind_of(tree, node),
        first_line=_first_line(tree, whole),
        end_line=end.line + 1 if end.column else end.line,
    )


def kind_of(tree: SyntaxTree, node: Node) -> str:
    """What a node defines, in one word; a function inside of a class is a method."""
    kind = tree.kinds.definitions[node.type]
    if node.type == "type_spec":
        type_node = node.child_by_field_name("type")
        return {"struct_type": "struct", "interface_type": "interface"}.get(type_node.type if type_node else "", kind)
    if kind == "function":
        around = next((a for a in ancestors(node.parent) if is_definition(tree, a)), None)
        if around is not None and around.type not in tree.kinds.functions and kind_of(tree, around) != "module":
            return "method"
    return kind


def name_of(tree: SyntaxTree, node: Node) -> str:
    """The name that a node defines; empty if it has none."""
    named = node.child_by_field_name("name") or node.child_by_field_name("property")
    if named is None and node.type == "impl_item":
        named = node.child_by_field_name("type")
    if named is None:
        named = _declared(node)
    if named is None and node.parent is not None and node.parent.type == "type_definition":
        named = _declared(node.parent)
    return " ".join(tree.text_of(named).split()) if named is not None else ""


def _declared(node: Node) -> Node | None:
    """C writes a name inside of what is declared with it: ``int *(*f)(void)``."""
    declarator = node.child_by_field_name("declarator")
    while declarator is not None:
        inner = declarator.child_by_field_name("declarator")
        if inner is None and declarator.type in {"parenthesized_declarator", "reference_declarator"}:
            inner = declarator.named_children[0] if declarator.named_children else None
        if inner is None:
            return declarator
        declarator = inner
    return None


def _first_line(tree: SyntaxTree, whole: Node) -> int:
    """The line where a definition begins, with the comments and attributes that stand right above it."""
    first = whole.start_point[0]
    before = whole.prev_named_sibling
    while before is not None and before.type in tree.kinds.leading and _last_row(before) + 1 >= first:
        if _is_remark(tree, before):
            break
        first = before.start_point[0]
        before = before.prev_named_sibling
    return first


def _is_remark(tree: SyntaxTree, comment: Node) -> bool:
    """Whether a comment stands at the end of other code."""
    return bool(tree.lines[comment.start_point[0]][: tree.start_of(comment).column].strip())


def _last_row(node: Node) -> int:
    row, column = node.end_point
    return row if column else row - 1  # a line comment of Rust takes its line end along


def _definition_below(tree: SyntaxTree, leading: Node) -> Node | None:
    """The definition that a comment or an attribute stands right above of."""
    node: Node | None = leading
    while node is not None and node.type in tree.kinds.leading:
        following = node.next_named_sibling
        if following is None or following.start_point[0] > _last_row(node) + 1 or _is_remark(tree, node):
            return None
        node = following
    return _inside_wrapper(tree, node)


def _inside_wrapper(tree: SyntaxTree, node: Node | None) -> Node | None:
    """The definition that a node is, or is written around."""
    while node is not None and not is_definition(tree, node):
        if node.type not in tree.kinds.wrappers:
            return None
        inner = [c for c in node.named_children if c.type in tree.kinds.wrappers or is_definition(tree, c)]
        node = inner[0] if inner else None
    return node
