"""Handle one more case: an ``elif`` branch of the author's is missing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.handle_error import describe_action
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Also handle the case {condition}: {action_text}",
    "If {condition}, {action_text}",
    "Add a branch for {condition} that should {action_text}",
    "{function} should {action_text} if {condition}",
    "Handle {condition} in {function} as well ({action_text})",
    "Add an elif: when {condition}, {action_text}",
    "The case {condition} is missing in {function}. It should {action_text}.",
    "support {condition}: {action_text}",
    "Extend the if/elif chain in {function}: {action_text} when {condition}",
    "Make {function} {action_text} when {condition}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``elif`` branches with one statement."""
    nodes = source.nodes(ast.If)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        parent = source.parents[node]
        is_elif = (
            isinstance(parent, ast.If)
            and parent.orelse == [node]
            and source.text.startswith("elif", source.start(node))
        )
        if function is None or not is_elif or len(node.body) != 1 or not source.has_own_lines(node.body[0]):
            continue
        action = describe_action(source, node.body[0])
        condition = " ".join(source.segment(node.test).split())
        if action is None or action == "ignore it" or len(condition) > 70:
            continue
        start = source.lines(node).start
        end = source.lines(node.body[0]).end
        if source.has_comment(source.line_of(end)) and node.orelse:
            continue
        yield Proposal(
            patches=(Patch(start, end, ""),),
            wordings=_WORDINGS,
            slots={"condition": condition, "action_text": action, "function": function.name},
            is_restored=True,
        )


REWRITE = Rewrite(name="add_branch", propose=propose, weight=3.0)
