"""Merge nested ``if`` statements into one condition, as the author wrote it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Merge the nested if statements",
    "Combine the two ifs into one condition",
    "Collapse the nested ifs in {function}",
    "merge ifs",
    "Use one if with and instead of two nested ones",
    "The nested if in {function} is not needed, join the conditions",
    "Reduce the nesting: combine {first} and {second} with and",
    "Simplify the nested conditions in {function}",
    "Put both conditions into a single if statement",
    "Flatten the nested if statements of {function} into one",
    "Replace if-in-if by a single condition joined with and",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``if a and b`` without ``else``, with two conditions on one line."""
    nodes = source.nodes(ast.If)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        test = node.test
        if function is None or node.orelse or not isinstance(test, ast.BoolOp) or not isinstance(test.op, ast.And):
            continue
        one_line = node.lineno == test.end_lineno and source.has_own_lines(node.body[0])
        if len(test.values) != 2 or not one_line or source.text[source.start(node) :].startswith("elif"):
            continue
        body = source.reindent(source.block_lines(node.body), 4)
        header = source.text[source.start(node) : source.lines(node.body[0]).start]
        if body is None or "#" in header or source.segment(test) not in header:
            continue
        indent = source.indent(node)
        first, second = (source.segment(value) for value in test.values)
        if header.strip() != f"if {source.segment(test)}:":
            continue
        yield Proposal(
            patches=(
                Patch(
                    source.lines(node).start,
                    source.lines(node).end,
                    f"{indent}if {first}:\n{indent}    if {second}:\n{body}",
                ),
            ),
            wordings=_WORDINGS,
            slots={"function": function.name, "first": first, "second": second},
            is_restored=True,
        )


REWRITE = Rewrite(name="merge_ifs", propose=propose, weight=2.5)
