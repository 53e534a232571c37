"""One mistake in correct code, and the words for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from train.data.synthetic.python_source import Function, Located, Node, PythonSource
from train.data.synthetic.scopes import walk_own


@dataclass(frozen=True, slots=True)
class Mistake:
    """``text`` put in place of the correct code; ``wrong`` says what is wrong with it, ``remedy`` what to do."""

    start: int
    end: int
    text: str
    wrong: str
    remedy: str


Seeder = Callable[[PythonSource, Function, Random], Iterator[Mistake]]


def own_nodes(function: Function, kind: type[Node], generator: Random) -> list[Node]:
    """The nodes of that type that run when the function runs, in random order."""
    nodes = [node for node in walk_own(function) if isinstance(node, kind)]
    generator.shuffle(nodes)
    return nodes


def swap(
    source: PythonSource, node: Located, wrong: str, seen: str, *, about: Located | None = None, remedy: str = ""
) -> Mistake:
    """A node replaced by another text; the remedy shows both."""
    right = source.segment(node)
    if about is not None:
        head = source.start(about)
        right, shown_wrong = (
            source.segment(about),
            source.text[head : source.start(node)] + wrong + source.text[source.end(node) : source.end(about)],
        )
    else:
        shown_wrong = wrong
    short = len(right) < 60 and "\n" not in right
    return Mistake(
        source.start(node), source.end(node), wrong, seen,
        remedy or (f"Replace {tick(shown_wrong)} by {tick(right)}" if short else "Correct the expression"),
    )  # fmt: skip


def tick(code: str) -> str:
    """Code on one line, in backticks."""
    return f"`{' '.join(code.split())}`"
