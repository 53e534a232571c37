"""Add a check of the input that the author makes and the user's version lacks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import is_test, parameters

_WORDINGS = (
    "Raise {error} if {condition}",
    "{function} should raise {error} when {condition}",
    "Add a check to {function} that raises {error} if {condition}",
    "raise {error} if {condition}",
    "{function} must not accept this: {condition}. Raise {error}.",
    "If {condition}, {function} must raise {error}",
    "Stop with {error} in {function} when {condition}",
    "What if {condition}? Raise {error} then.",
)
_MESSAGE_WORDINGS = (
    'Raise {error} with the message "{message_text}" if {condition}',
    "If {condition}, {function} should raise {error} saying {message}",
    "Fail in {function}: raise {error} ({message_text}) if {condition}",
    'Raise an error "{message_text}" when {condition}',
)
_INPUT_WORDINGS = (
    "Check the input: raise {error} if {condition}",
    "Validate the arguments of {function}: if {condition}, raise {error}",
    "Reject invalid input in {function} ({condition}) with {error}",
    "Add input validation to {function}: {error} if {condition}",
    "Fail early in {function} if {condition}: raise {error}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``if ...: raise ...`` of random functions, where the test reads a parameter."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        names = {argument.arg for argument in parameters(function)} - {"self", "cls"}
        for place, node in enumerate(function.body):
            raised = _raise_of(node)
            if raised is None or not isinstance(node, ast.If) or place + 1 == len(function.body) == 1:
                continue
            read = {child.id for child in ast.walk(node.test) if isinstance(child, ast.Name)}
            condition = " ".join(source.segment(node.test).split())
            if is_test(function) or not read & names or len(condition) > 90 or not source.has_own_lines(node):
                continue
            if isinstance(node.test, ast.NamedExpr) or len(function.body) < 2:
                continue
            error, message = _error_and_message(raised)
            if not error:
                continue
            span = source.lines(node)
            end = span.end + (source.text[span.end : span.end + 1] == "\n")
            yield Proposal(
                patches=(Patch(_with_comment_above(source, span.start), end, ""),),
                wordings=_WORDINGS
                + (_MESSAGE_WORDINGS if message else ())
                + (_INPUT_WORDINGS if read <= names else ()),
                slots={
                    "error": error,
                    "condition": condition,
                    "function": function.name,
                    "message": repr(message),
                    "message_text": message,
                },
                is_restored=True,
            )


def _raise_of(node: ast.stmt) -> ast.expr | None:
    if isinstance(node, ast.If) and len(node.body) == 1 and not node.orelse and isinstance(node.body[0], ast.Raise):
        return node.body[0].exc
    return None


def _error_and_message(raised: ast.expr) -> tuple[str, str]:
    """The exception's name and its message where that is a plain text."""
    called = raised.func if isinstance(raised, ast.Call) else raised
    if not isinstance(called, ast.Name | ast.Attribute):
        return "", ""
    first = raised.args[0] if isinstance(raised, ast.Call) and raised.args else None
    message = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    return ast.unparse(called), message if len(message) < 120 and "\n" not in message else ""


def _with_comment_above(source: PythonSource, start: int) -> int:
    """Where the comment lines right above begin."""
    while start > 0:
        line = source.line_of(start - 1)
        if not source.text[line.start : line.end].strip().startswith("#"):
            break
        start = line.start
    return start


REWRITE = Rewrite(name="validation", propose=propose, weight=3.0)
