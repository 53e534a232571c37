"""Add the log call that the author makes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})

_WORDINGS = (
    'Log "{message_text}" at level {level_text}',
    'Add a {level_text} log message to {function}: "{message_text}"',
    "Add logging to {function}",
    "Add {written} where it belongs",
    "{function} should log {message_text} with level {level_text}",
    'Call {call} in {function} with the message "{message_text}"',
    "It should be visible in the log when this happens: {message_text}",
    "Add a log statement ({level_text}) to {function}",
    "log {message_text} in {function}",
    "Emit a {level_text} message in {function} that says {message_text}",
    "Can {function} log this case? Use {call}.",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Log calls that stand as statements of their own among others."""
    nodes = source.nodes(ast.Expr)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        if not isinstance(node.value, ast.Call) or function is None or not source.has_own_lines(node):
            continue
        called = node.value.func
        if not isinstance(called, ast.Attribute) or called.attr not in _LEVELS or not node.value.args:
            continue
        owner = ast.unparse(called.value)
        message = _message_of(node.value.args[0])
        block = next((block for block in source.blocks if node in block), [])
        if "log" not in owner.lower() or not message or len(block) < 2:
            continue
        span = source.lines(node)
        yield Proposal(
            patches=(Patch(span.start, span.end, ""),),
            wordings=_WORDINGS,
            slots={
                "message_text": message,
                "level_text": "error" if called.attr == "exception" else called.attr,
                "call": f"{owner}.{called.attr}",
                "written": f'{owner}.{called.attr}("{message}")',
                "function": function.name,
            },
            is_restored=True,
        )


def _message_of(node: ast.expr) -> str:
    """The message as it is written; empty where it is long or no plain text."""
    match node:
        case ast.Constant(value=str(text)):
            message = text
        case ast.JoinedStr():
            message = ast.unparse(node)[2:-1]
        case _:
            return ""
    return message.strip().rstrip(".") if "\n" not in message and 5 < len(message) < 100 else ""


REWRITE = Rewrite(name="add_logging", propose=propose, weight=4.0)
