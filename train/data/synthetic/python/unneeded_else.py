"""Drop an ``else`` after a branch that leaves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch, Span
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Remove the unnecessary else",
    "Remove the else after {leaving_text}",
    "The else is not needed, the if branch always leaves the function",
    "drop else",
    "{function}: no else after {leaving_text}",
    "Unindent the else branch in {function}",
    "Simplify {function} by removing the redundant else",
    "Flatten the if/else in {function}; the if branch ends in {leaving_text}",
    "The linter complains about no-else-{leaving_text} in {function}, fix that",
    "Avoid the else block after {leaving_text}",
    "Get rid of the else in {function} without changing what it does",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``if``/``else`` pairs whose first branch returns, raises, continues or breaks."""
    nodes = source.nodes(ast.If)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        leaves = isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
        if function is None or not leaves or not node.orelse or not source.has_own_lines(node.orelse[0]):
            continue
        own_word = source.text[source.start(node) : source.start(node) + 4]
        between = Span(source.lines(node.body[-1]).end, source.lines(node.orelse[0]).start)
        if own_word == "elif" or source.text[between.start : between.end].strip() != "else:":
            continue
        moved = source.reindent(
            source.block_lines(node.orelse), len(source.indent(node)) - len(source.indent(node.orelse[0]))
        )
        if moved is None:
            continue
        gap = generator.choice(("", "\n")) if len(node.body) == 1 else "\n"
        yield Proposal(
            patches=(Patch(between.start, source.lines(node).end, gap + moved),),
            wordings=_WORDINGS,
            slots={"function": function.name, "leaving_text": source.segment(node.body[-1]).split()[0]},
        )


REWRITE = Rewrite(name="unneeded_else", propose=propose, weight=4.0)
