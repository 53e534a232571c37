"""Local variables of a function and where they are named, for languages with blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.data.synthetic.patches import Span
from train.data.synthetic.tree_source import TreeSource

if TYPE_CHECKING:
    from tree_sitter import Node

# Node type -> the field with the declared name or names.
_DECLARATIONS = {
    "variable_declarator": "name",
    "short_var_declaration": "left",
    "let_declaration": "pattern",
    "init_declarator": "declarator",
    "enhanced_for_statement": "name",
}
# Where an identifier is the name of a member, a key or a label, and no variable.
_MEMBERS = frozenset(
    {
        ("field_access", "field"),
        ("method_invocation", "name"),
        ("scoped_identifier", "name"),
        ("scoped_identifier", "path"),
        ("keyed_element", "key"),
    }
)
_SHORTHANDS = frozenset(
    {"shorthand_property_identifier", "shorthand_field_initializer", "shorthand_property_identifier_pattern"}
)
_STRINGS = ("string", "template_string", "string_literal", "raw_string_literal", "interpreted_string_literal")


def declared_names(source: TreeSource, function: Node) -> list[str]:
    """Names that exactly one plain declaration in the function's body introduces."""
    body = function.child_by_field_name("body")
    found: dict[str, int] = {}
    for node in source.walk(body) if body is not None else ():
        name = node.child_by_field_name(_DECLARATIONS.get(node.type, "")) if node.type in _DECLARATIONS else None
        names = (
            [name]
            if name is not None and name.type == "identifier"
            else list(name.named_children)
            if name is not None and name.type == "expression_list"
            else []
        )
        for part in names:
            if part is not None and part.type == "identifier":
                found[source.segment(part)] = found.get(source.segment(part), 0) + 1
    return [name for name, count in found.items() if count == 1]


def find_uses(source: TreeSource, function: Node, name: str) -> list[Span] | None:
    """Every place in the function where the variable is named.

    Returns:
        None where a rename would not be safe: a parameter or an inner scope may have the name too, or a string or a
        shorthand mentions it.
    """
    spans: list[Span] = []
    for node in source.walk(function):
        if node.type in _SHORTHANDS and source.segment(node) == name:
            return None
        if node.type in _STRINGS and ("{" + name) in source.segment(node) and not node.named_children:
            return None
        if node.type != "identifier" or source.segment(node) != name:
            continue
        parent = node.parent
        if parent is None or _is_member(node, parent):
            continue
        if "parameter" in parent.type or parent.type in (
            "catch_clause",
            "closure_parameters",
            "labeled_statement",
            "arrow_function",
        ):
            return None
        spans.append(source.span(node))
    return spans if len(spans) > 1 else None


def _is_member(node: Node, parent: Node) -> bool:
    """Whether the identifier names a member of something else."""
    fields = [field for kind, field in _MEMBERS if kind == parent.type]
    return any(parent.child_by_field_name(field) == node for field in fields)
