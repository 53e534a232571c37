"""Return early instead of nesting the rest of a function in an ``if``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch, Span
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.conditions import negate
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Use an early return in {function}",
    "Use a guard clause instead of nesting",
    "Return early if {negated}",
    "early return",
    "Reduce the nesting in {function}: {exit_text} early if {negated}",
    "Invert the condition {condition} and {exit_text} early",
    "Flatten {function} with a guard clause",
    "Replace the if block around the body of {function} by an early {exit_text}",
    "{function} is nested too deep. Check {negated} first and {exit_text}.",
    "Unnest the body of the if statement by handling {negated} first",
    "Turn the if into a guard clause that does {exit_text} when {negated}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``if`` statements that end a function or a loop and hold at least two statements."""
    nodes = source.nodes(ast.If)
    generator.shuffle(nodes)
    for node in nodes:
        parent = source.parents[node]
        function = source.function_of(node)
        if function is None or not source.has_own_lines(node.body[0]):
            continue
        leave = _way_out(node, parent)
        negated = negate(source, node.test)
        header_has_comment = source.has_comment(Span(source.start(node), source.lines(node.body[0]).start))
        if leave is None or negated is None or header_has_comment:
            continue
        body_start = source.lines(node.body[0]).start
        body_end = source.lines(node.body[-1]).end
        body = source.reindent(Span(body_start, body_end), len(source.indent(node)) - len(source.indent(node.body[0])))
        if body is None or source.text[source.start(node) :].startswith("elif"):
            continue
        indent = source.indent(node)
        inner = source.indent(node.body[0])
        leaving = leave if isinstance(leave, str) else " ".join(source.segment(leave).split())
        yield Proposal(
            patches=(
                Patch(
                    source.lines(node).start,
                    source.lines(node).end,
                    f"{indent}if {negated}:\n{inner}{leaving}\n\n{body}",
                ),
            ),
            wordings=_WORDINGS,
            slots={
                "function": function.name,
                "negated": negated,
                "condition": source.segment(node.test),
                "exit_text": leaving.split()[0],
            },
        )


def _way_out(node: ast.If, parent: ast.AST) -> str | ast.stmt | None:
    """What the guard does: a bare return or continue, or the ``else`` branch that leaves; None where nothing fits."""
    block = getattr(parent, "body", [])
    if len(node.body) < 2:
        return None
    if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.Return | ast.Raise | ast.Continue):
        is_one_line = node.orelse[0].lineno == node.orelse[0].end_lineno
        return node.orelse[0] if is_one_line and len(node.body) > 1 else None
    if node.orelse or not isinstance(block, list) or not block or block[-1] is not node:
        return None
    if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
        isinstance(child, ast.Return) and child.value is not None for child in ast.walk(parent)
    ):
        return "return"
    return "continue" if isinstance(parent, ast.For | ast.AsyncFor | ast.While) else None


REWRITE = Rewrite(name="guard_clause", propose=propose, weight=4.0)
