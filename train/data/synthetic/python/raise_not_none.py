"""Raise an exception where the function returns None for bad input."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource

_WORDINGS = (
    "Raise {error} instead of returning None",
    "{function} should raise {error} instead of returning None if {condition}",
    "raise {error} when {condition}",
    "Do not return None silently: raise {error}",
    "If {condition}, raise {error} with a clear message",
    "Make {function} fail loudly: {error} instead of None",
    "Replace return None by raising {error}",
    "Callers forget to check for None. Raise {error} if {condition}.",
    'Raise {error}("{message_text}") instead of returning None',
    "Turn the silent None into an exception ({error}, message: {message_text})",
    "Returning None hides the problem here, use an exception",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """``if ...: return None`` whose condition says what is wrong."""
    nodes = source.nodes(ast.If)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        match node.body:
            case [ast.Return(value=None | ast.Constant(value=None)) as leave]:
                pass
            case _:
                continue
        described = _describe(source, node.test)
        if function is None or described is None or function.name.startswith("__") or _may_return_none(function):
            continue
        returns_values = any(
            isinstance(child, ast.Return) and child.value is not None and not isinstance(child.value, ast.Constant)
            for child in ast.walk(function)
        )
        if not returns_values or not source.has_own_lines(leave):
            continue
        error, message = described
        yield Proposal(
            patches=(source.replace(leave, f'raise {error}("{message}")'),),
            wordings=_WORDINGS,
            slots={
                "function": function.name,
                "error": error,
                "condition": " ".join(source.segment(node.test).split()),
                "message_text": message,
            },
        )


def _may_return_none(function: Function) -> bool:
    """Whether the signature says that None is a proper result."""
    hint = ast.unparse(function.returns) if function.returns is not None else ""
    return "None" in hint or "Optional" in hint


def _describe(source: PythonSource, test: ast.expr) -> tuple[str, str] | None:
    """The exception and its message for a condition; None where it does not say what is wrong."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=ast.Name(id=name)):
            return "ValueError", f"{name} is missing"
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Is()], comparators=[ast.Constant(value=None)]):
            return "ValueError", f"{name} must not be None"
        case ast.Compare(
            left=ast.Name(id=name), ops=[ast.NotIn()], comparators=[ast.Name() | ast.Attribute() as known]
        ):
            return "KeyError", f"{name} is not in {source.segment(known)}"
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Lt()], comparators=[ast.Constant(value=0)]):
            return "ValueError", f"{name} must not be negative"
        case ast.UnaryOp(
            op=ast.Not(), operand=ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), ast.Name(id=kind)])
        ):
            return "TypeError", f"{name} must be of type {kind}"
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=name)]), ops=[ast.Lt() | ast.NotEq()]
        ):
            return "ValueError", f"{name} has the wrong length"
        case _:
            return None


REWRITE = Rewrite(name="raise_not_none", propose=propose, weight=5.0)
