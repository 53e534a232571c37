"""Make a function asynchronous, as the author's is: the user starts with the blocking version."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import walk_own

WORDINGS = (
    "Make {function} async",
    "Convert {function} to an async function",
    "async",
    "{function} should be a coroutine that awaits {awaited}",
    "Turn {function} into a coroutine",
    "Use async/await in {function}",
    "Make {function} asynchronous; {awaited} is a coroutine now",
    "Await {awaited} in {function}, which has to become async",
    "{awaited} became async. Adapt {function}.",
    "Rewrite {function} with async def and await",
    "Port {function} from the blocking to the asyncio API",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Coroutines that await calls; what the asynchronous protocol renames is renamed."""
    functions = source.nodes(ast.AsyncFunctionDef)
    generator.shuffle(functions)
    for function in functions:
        patches = blocking_patches(source, function)
        awaited = [node.value for node in walk_own(function) if isinstance(node, ast.Await)]
        names = [source.segment(node.func) for node in awaited if isinstance(node, ast.Call)]
        if patches is None or not names or max(map(len, names)) > 40 or "\n" in names[0]:
            continue
        yield Proposal(
            patches=tuple(patches),
            wordings=WORDINGS,
            slots={"function": function.name, "awaited": " and ".join(dict.fromkeys(names[:1]))},
            is_restored=True,
        )


def blocking_patches(source: PythonSource, function: ast.AsyncFunctionDef) -> list[Patch] | None:
    """Patches that take ``async`` and ``await`` out of a coroutine; None where others are inside."""
    start = source.start(function)
    patches = [Patch(start, start + len("async "), "")]
    for node in walk_own(function):
        match node:
            case ast.Await(value=value):
                if any(isinstance(outer, ast.Lambda) for outer in source.ancestors(node)):
                    return None
                patches.append(Patch(source.start(node), source.start(value), ""))
                if isinstance(value, ast.Call) and source.segment(value.func) == "asyncio.sleep":
                    patches.append(Patch(source.start(value), source.start(value) + len("asyncio"), "time"))
            case ast.AsyncFor() | ast.AsyncWith():
                patches.append(Patch(source.start(node), source.start(node) + len("async "), ""))
            case ast.comprehension(is_async=1) | ast.AsyncFunctionDef() | ast.Yield():
                return None
            case _:
                continue
    texts = [source.text[patch.start : patch.end] for patch in patches]
    plain = all(text in ("async ", "await ", "asyncio") for text in texts)
    return patches if plain else None


REWRITE = Rewrite(name="to_async", propose=propose, weight=3.0)
