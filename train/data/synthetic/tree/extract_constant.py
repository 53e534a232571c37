"""Give a number inside a function a name, as a constant above the function (JavaScript, TypeScript, Go)."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from train.data.synthetic.naming import join_words, split_words
from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.extract_constant import WORDINGS
from train.data.synthetic.tree_source import TreeSource

if TYPE_CHECKING:
    from tree_sitter import Node

_NUMBERS = frozenset({"number", "int_literal", "float_literal"})


def propose(source: TreeSource, generator: Random) -> Iterator[Proposal]:
    """Numbers that a key, a variable or a comparison with a length names."""
    found = [
        node for node in source.nodes if node.type in _NUMBERS and source.segment(node) not in ("0", "1", "2", "-1")
    ]
    generator.shuffle(found)
    for node in found:
        top = node
        while top.parent is not None and top.parent.parent is not None:
            top = top.parent
        function = next((part for part in source.walk(top) if part in source.functions and _inside(node, part)), None)
        word = _name_from_place(source, node)
        if word is None or function is None:
            continue
        is_go = source.language == "go"
        words = split_words(word)
        name = join_words(["default", *words] if len(words) < 2 else words, "camelCase" if is_go else "UPPER_CASE")
        if name in source.identifiers or not name.isidentifier():
            continue
        value = source.segment(node)
        definition = f"const {name} = {value}" + ("" if is_go or ";" not in source.text else ";")
        above = top.start_byte and source.lines(source.span(top)).start
        previous = top.prev_named_sibling
        if previous is not None and "comment" in previous.type and previous.end_point[0] >= top.start_point[0] - 1:
            continue  # the comment above belongs to the function, not to the constant
        yield Proposal(
            patches=(Patch(above, above, f"{definition}\n\n"), source.replace(node, name)),
            wordings=WORDINGS,
            slots={
                "value": value,
                "name": name,
                "function": source.name_of(function),
                "owner": source.name_of(function),
                "definition": definition.rstrip(";"),
            },
        )


def _inside(node: Node, outer: Node) -> bool:
    return outer.start_byte <= node.start_byte and node.end_byte <= outer.end_byte


def _name_from_place(source: TreeSource, node: Node) -> str | None:
    parent = node.parent
    if parent is None:
        return None
    if parent.type in ("pair", "variable_declarator"):
        key = parent.child_by_field_name("key") or parent.child_by_field_name("name")
        return source.segment(key) if key is not None and key.type in ("property_identifier", "identifier") else None
    if parent.type == "literal_element" and parent.parent is not None and parent.parent.type == "keyed_element":
        key = parent.parent.named_children[0]
        return source.segment(key)
    if parent.type == "binary_expression":
        operator = parent.child_by_field_name("operator")
        left = parent.child_by_field_name("left")
        text = source.segment(left) if left is not None and left != node else ""
        if operator is not None and source.segment(operator) in (">", ">=") and text.endswith(".length"):
            return f"max {text[: -len('.length')].split('.')[-1]} length"
        if operator is not None and source.segment(operator) in (">", ">=") and text.startswith("len("):
            return f"max {text[4:-1].split('.')[-1]} length"
    return None


REWRITE = Rewrite(
    name="extract_constant",
    propose=propose,
    languages=frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact", "go"}),
    weight=3.0,
)
