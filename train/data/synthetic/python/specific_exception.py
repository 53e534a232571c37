"""Catch the exceptions that the author names instead of everything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Catch only {error}",
    "Catch {error} instead of every exception",
    "Replace {broad} by {error}",
    "Do not catch everything here, only {error}",
    "The except clause is too broad: it should be {error}",
    "except {error_text}",
    "Narrow the exception handler in {function} to {error}",
    "{broad} hides bugs. Catch {error} only.",
    "Only {error} is expected here; let other exceptions through",
    "Use a specific exception ({error}) in the except clause of {function}",
    "Make the except clause specific: {error}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Handlers that name one or more specific exceptions."""
    handlers = source.nodes(ast.ExceptHandler)
    generator.shuffle(handlers)
    for handler in handlers:
        function = source.function_of(handler)
        parent = source.parents[handler]
        if handler.type is None or function is None or not isinstance(parent, ast.Try) or len(parent.handlers) > 1:
            continue
        error = " ".join(source.segment(handler.type).split())
        if error in ("Exception", "BaseException"):
            continue
        is_bare = handler.name is None and generator.random() < 0.4
        start = source.start(handler)
        patch = (
            Patch(start + len("except"), source.end(handler.type), "")
            if is_bare
            else Patch(source.start(handler.type), source.end(handler.type), "Exception")
        )
        yield Proposal(
            patches=(patch,),
            wordings=_WORDINGS,
            slots={
                "error": " and ".join(part.strip() for part in error.strip("()").split(",") if part.strip()),
                "error_text": error,
                "broad": "except:" if is_bare else "except Exception",
                "function": function.name,
            },
            is_restored=True,
        )


REWRITE = Rewrite(name="specific_exception", propose=propose, weight=1.0)
