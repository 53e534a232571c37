"""Rename an attribute of a class's instances, everywhere in the class."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.naming import rename_value
from train.data.synthetic.patches import Patch, Span
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Rename the attribute {old} of {owner} to {new}",
    "Rename {self_old} to {self_new}",
    "rename attribute {old} -> {new}",
    "Rename the instance attribute {old} to {new} in all methods of {owner}",
    "{self_old} should be {self_new}",
    "The field {old} should be called {new}",
    "Use {self_new} instead of {self_old} everywhere in the class",
    "In {owner}, store this under {new} rather than {old}",
    "Change the attribute name {old} to {new}; nothing else changes",
    "{old} is a poor name for an attribute. Call it {new}.",
    "Rename the {old} member to {new}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Renames of attributes that only methods of their class touch."""
    classes = source.classes
    generator.shuffle(classes)
    for owner in classes:
        inside = [node for node in ast.walk(owner) if isinstance(node, ast.Attribute) and _is_own(node)]
        stored = {node.attr for node in inside if isinstance(node.ctx, ast.Store)}
        names = sorted(name for name in stored if not name.startswith("__"))
        generator.shuffle(names)
        for old in names:
            uses = [node for node in source.nodes(ast.Attribute) if node.attr == old]
            declared = [
                node
                for node in source.nodes(ast.Name)
                if node.id == old and source.parents.get(source.parents[node]) is owner
            ]
            new = rename_value(old, source.identifiers, generator)
            is_private_to_class = len(uses) >= 2 and all(node in inside for node in uses) and not declared
            named_elsewhere = any(function.name == old for function in source.functions) or any(
                constant.value == old for constant in source.nodes(ast.Constant)
            )
            if new is None or not is_private_to_class or named_elsewhere:
                continue
            spans = [Span(source.end(node) - len(old), source.end(node)) for node in uses]
            if any(source.text[span.start : span.end] != old for span in spans):
                continue
            yield Proposal(
                patches=tuple(Patch(span.start, span.end, new) for span in sorted(set(spans))),
                wordings=_WORDINGS,
                slots={
                    "old": old,
                    "new": new,
                    "owner": owner.name,
                    "self_old": f"self.{old}",
                    "self_new": f"self.{new}",
                },
            )


def _is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


REWRITE = Rewrite(name="rename_attribute", propose=propose, weight=1.5)
