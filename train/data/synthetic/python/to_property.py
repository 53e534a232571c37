"""Make a method a property, as the author's is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Make {name} a property",
    "Turn the method {name} of {owner} into a property",
    "{name} should be a property",
    "use @property for {name}",
    "Convert {qualified} to a property and update its uses",
    "Decorate {name} with @property and drop the call parentheses",
    "{name} takes no arguments, so it can be a property",
    "Let users of {owner} write {plain} instead of {called}",
    "Change {name} from a method to a read-only property",
    "Can {name} be an attribute-like property?",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Properties without setter."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        owner = source.class_of(function)
        if owner is None or [ast.unparse(part) for part in function.decorator_list] != ["property"]:
            continue
        if sum(other.name == function.name for other in source.functions) > 1:
            continue
        decorator = source.line_of(source.start(function.decorator_list[0]))
        uses = [node for node in source.nodes(ast.Attribute) if node.attr == function.name]
        own = [node for node in uses if source.is_inside(node, owner) and ast.unparse(node.value) == "self"]
        if len(own) != len(uses) or any(isinstance(node.ctx, ast.Store) for node in uses):
            continue
        yield Proposal(
            patches=(
                Patch(decorator.start, decorator.end, ""),
                *[Patch(source.end(node), source.end(node), "()") for node in own],
            ),
            wordings=_WORDINGS,
            slots={
                "name": function.name,
                "owner": owner.name,
                "qualified": f"{owner.name}.{function.name}()",
                "plain": f"obj.{function.name}",
                "called": f"obj.{function.name}()",
            },
            is_restored=True,
        )


REWRITE = Rewrite(name="to_property", propose=propose, weight=3.0)
