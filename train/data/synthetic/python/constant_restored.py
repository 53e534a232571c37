"""Introduce the constant that the author has: its value stands in the code the user starts with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.extract_constant import WORDINGS
from train.data.synthetic.python_source import PythonSource


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Module constants with a literal value that are read one to three times."""
    statements = source.tree.body[:]
    generator.shuffle(statements)
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int() | float() | str() as value)):
                pass
            case _:
                continue
        if not name.isupper() or isinstance(value, bool) or source.has_comment(source.lines(statement)):
            continue
        uses = [node for node in source.nodes(ast.Name) if node.id == name and isinstance(node.ctx, ast.Load)]
        text = source.segment(statement.value)
        in_functions = [source.function_of(node) for node in uses]
        if (
            not 1 <= len(uses) <= 3
            or None in in_functions
            or len(text) > 60
            or "\n" in text
            or text.startswith(('"""', "'''"))
        ):
            continue
        if any(source.segment(node) != name or source.is_in_fstring(node) for node in uses):
            continue
        if any(constant.value == name for constant in source.nodes(ast.Constant)):
            continue
        function = in_functions[0]
        owner = next(part for part in source.tree.body if source.is_inside(uses[0], part))
        span = source.lines(statement)
        yield Proposal(
            patches=(Patch(span.start, span.end, ""), *[source.replace(node, text) for node in uses]),
            wordings=WORDINGS,
            slots={
                "value": text,
                "definition": f"{name} = {text}",
                "name": name,
                "function": function.name if function else "",
                "owner": getattr(owner, "name", "it"),
            },
            is_restored=True,
        )


REWRITE = Rewrite(name="constant_restored", propose=propose, weight=6.0)
