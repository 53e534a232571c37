"""Make a coroutine an ordinary function."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.to_async import blocking_patches
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Make {function} synchronous",
    "Convert {function} to a normal function",
    "remove async/await",
    "{function} should not be a coroutine",
    "Drop async and await from {function}",
    "Turn the coroutine {function} into a blocking function",
    "Make a sync version of {function}: no async def, no await",
    "Everything that {function} calls is synchronous now, adapt it",
    "Use the blocking API in {function}",
    "No asyncio in {function}, please",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Coroutines whose asynchronous parts are all their own."""
    functions = source.nodes(ast.AsyncFunctionDef)
    generator.shuffle(functions)
    for function in functions:
        patches = blocking_patches(source, function)
        others = re.sub(r"asyncio\.sleep", "", source.segment(function))
        is_bound_to_loop = re.search(r"\b(asyncio|anyio|trio)\.", others) or (
            "asyncio.sleep" in source.segment(function) and "time" not in source.identifiers
        )
        if patches is not None and len(patches) > 1 and not is_bound_to_loop:
            yield Proposal(patches=tuple(patches), wordings=_WORDINGS, slots={"function": function.name})


REWRITE = Rewrite(name="to_sync", propose=propose, weight=1.0)
