"""Loop with ``enumerate`` instead of over ``range(len(...))``, as the author does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import stored_names, walk_block

_WORDINGS = (
    "Use enumerate",
    "Use enumerate instead of {old}",
    "Loop with enumerate over {sequence}",
    "enumerate instead of range(len())",
    "Iterate over {sequence} directly, you need both index and element",
    "Replace the index loop in {function} by enumerate",
    "Make the loop over {sequence} more Pythonic",
    "The loop should use enumerate and call the element {name}",
    "{loop}",
    "Avoid {element} inside the loop: use enumerate",
    "Simplify the loop in {function} with enumerate",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``for i, x in enumerate(xs)`` whose element is only read."""
    nodes = source.nodes(ast.For)
    generator.shuffle(nodes)
    for node in nodes:
        match node:
            case ast.For(
                target=ast.Tuple(elts=[ast.Name(id=index), ast.Name(id=name)]),
                iter=ast.Call(
                    func=ast.Name(id="enumerate"), args=[ast.Name() | ast.Attribute() as sequence], keywords=[]
                ),
            ):
                pass
            case _:
                continue
        function = source.function_of(node)
        uses = [child for child in walk_block(node.body) if isinstance(child, ast.Name) and child.id == name]
        later = function is not None and any(
            isinstance(child, ast.Name) and child.id == name and child.lineno > (node.end_lineno or 0)
            for child in ast.walk(function)
        )
        stores = stored_names(walk_block(node.body))
        owner = ast.unparse(sequence).split(".")[0]
        if function is None or not 1 <= len(uses) <= 4 or later or stores & {name, index, owner}:
            continue
        if any(source.segment(use) != name or source.is_in_fstring(use) for use in uses):
            continue
        text = source.segment(sequence)
        yield Proposal(
            patches=(
                Patch(source.start(node.target), source.end(node.iter), f"{index} in range(len({text}))"),
                *[source.replace(use, f"{text}[{index}]") for use in uses],
            ),
            wordings=_WORDINGS,
            slots={
                "sequence": text,
                "name": name,
                "function": function.name,
                "loop": f"for {index}, {name} in enumerate({text})",
                "element": f"{text}[{index}]",
                "old": f"range(len({text}))",
            },
            is_restored=True,
        )


REWRITE = Rewrite(name="use_enumerate", propose=propose, weight=5.0)
