"""The regions of a Python file: some lines, a function, a class, or the whole file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Span
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.regions import Region, widen


def find_regions(source: PythonSource, changed: Span, generator: Random) -> list[Region]:
    """The regions of a Python file that hold all changed characters, largest first."""
    whole = Region(Span(0, len(source.text)), "file")
    regions = [whole]
    block = source.tree.body
    while True:
        spans = [source.lines(statement) for statement in block]
        around = next(
            (
                (statement, span)
                for statement, span in zip(block, spans, strict=True)
                if span.contains(changed) and not _stands_before(changed, span)
            ),
            None,
        )
        if around is None:
            return [*regions, Region(widen(spans, source.cover(changed), generator), "lines")]
        statement, span = around
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            regions.append(Region(span, "function"))
        elif isinstance(statement, ast.ClassDef):
            regions.append(Region(span, "class"))
        inner = next((inner for inner in _inner_blocks(statement) if source.block_lines(inner).contains(changed)), None)
        if inner is None:
            return [*regions, Region(widen(spans, source.cover(changed), generator), "lines")]
        block = inner


def _stands_before(changed: Span, span: Span) -> bool:
    """An insertion right above a statement belongs to the statement's surroundings, not to the statement."""
    return changed.start == changed.end == span.start


def _inner_blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(statement, name, None)
        if isinstance(block, list) and block:
            yield block
    for branch in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
        yield branch.body
