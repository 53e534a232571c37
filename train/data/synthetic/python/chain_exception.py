"""Raise an exception ``from`` its cause, as the author does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Chain the exception: raise from {cause}",
    "Keep the cause when raising {error}",
    "raise ... from {cause}",
    "Raise {error} from {cause}",
    "The original exception is lost in {function}; chain it with from",
    "Use exception chaining when raising {error} in {function}",
    "Set {cause} as the cause of {error}",
    "{error} should be raised from {cause}",
    "Make the traceback show where {error} comes from: raise it from {cause}",
    "Add from {cause} to the raise statement",
)
_HIDING_WORDINGS = (
    "Hide the original exception: raise {error} from None",
    "Raise {error} from None",
    "The traceback should not show the inner exception, raise from None",
    "Suppress the context of {error} in {function}",
    "raise from None here",
    "Users should see only {error}, not what caused it. Use from None.",
    "Add from None to the raise statement in {function}",
    "Do not chain {error} to the exception that is being handled",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """All ``raise ... from ...`` of the file, in random order."""
    nodes = [node for node in source.nodes(ast.Raise) if node.cause is not None]
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        if node.exc is None or node.cause is None or function is None or source.has_comment(source.lines(node)):
            continue
        cause = source.segment(node.cause)
        called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        yield Proposal(
            patches=(Patch(source.end(node.exc), source.end(node.cause), ""),),
            wordings=_HIDING_WORDINGS if cause == "None" else _WORDINGS,
            slots={"error": ast.unparse(called), "cause": cause, "function": function.name},
            is_restored=True,
        )


REWRITE = Rewrite(name="chain_exception", propose=propose, weight=3.0)
