"""Turn a loop that fills a list, set or dictionary into a comprehension."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from random import Random

from train.data.synthetic.patches import Patch, Span
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import loaded_names, stored_names

MAX_WIDTH = 100

_WORDINGS = (
    "Use a {kind_text} comprehension for {name}",
    "Replace the loop with a {kind_text} comprehension",
    "Turn the for loop that fills {name} into a {kind_text} comprehension",
    "use a comprehension",
    "Build {name} with a comprehension instead of a loop",
    "Simplify this loop",
    "{name} can be a {kind_text} comprehension",
    "Rewrite the loop over {iterated} as a {kind_text} comprehension",
    "Convert the loop in {function} to a comprehension",
    "Make the construction of {name} more Pythonic",
    "In {function}, create {name} in one expression",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Loops right after ``name = []`` (or a set or dict) whose only effect is to fill it."""
    blocks = source.blocks
    generator.shuffle(blocks)
    for block in blocks:
        for first, loop in pairwise(block):
            made = _comprehension(source, first, loop)
            function = source.function_of(loop)
            if made is None or function is None or not isinstance(loop, ast.For):
                continue
            name, kind, head, body = made
            span = Span(source.lines(first).start, source.lines(loop).end)
            if source.has_comment(span) or _is_used_after(loop, block):
                continue
            indent = source.indent(first)
            opening, closing = ("[", "]") if kind == "list" else ("{", "}")
            line = f"{indent}{head} = {opening}{' '.join(body)}{closing}\n"
            if len(line) > MAX_WIDTH:
                inner = indent + "    "
                line = (
                    f"{indent}{head} = {opening}\n"
                    + "".join(f"{inner}{part}\n" for part in body)
                    + f"{indent}{closing}\n"
                )
            yield Proposal(
                patches=(Patch(span.start, span.end, line),),
                wordings=_WORDINGS,
                slots={
                    "name": name,
                    "kind_text": kind,
                    "iterated": " ".join(source.segment(loop.iter).split()),
                    "function": function.name,
                },
            )


def _comprehension(source: PythonSource, first: ast.stmt, loop: ast.stmt) -> tuple[str, str, str, list[str]] | None:
    """Name, kind, left side, and the comprehension's clauses; None where the statements are no such pair."""
    match first:
        case ast.Assign(targets=[ast.Name(id=name)], value=empty):
            head = name
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as empty, annotation=hint):
            head = f"{name}: {source.segment(hint)}"
        case _:
            return None
    kind = {"[]": "list", "list()": "list", "{}": "dict", "dict()": "dict", "set()": "set"}.get(source.segment(empty))
    if kind is None or not isinstance(loop, ast.For) or loop.orelse or len(loop.body) != 1:
        return None
    statement = loop.body[0]
    test: ast.expr | None = None
    if isinstance(statement, ast.If) and not statement.orelse and len(statement.body) == 1:
        test = statement.test
        statement = statement.body[0]
    element = _element(source, statement, name, kind)
    has_pause = any(isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr) for node in ast.walk(loop))
    reads_itself = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(loop)) > 1
    if element is None or has_pause or reads_itself:
        return None
    clauses = [element, f"for {source.segment(loop.target)} in {source.segment(loop.iter)}"]
    if test is not None:
        clauses.append(f"if {source.segment(test)}")
    return None if any("\n" in clause for clause in clauses) else (name, kind, head, clauses)


def _element(source: PythonSource, statement: ast.stmt, name: str, kind: str) -> str | None:
    match statement:
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=method), args=[value], keywords=[])
        ):
            fits = owner == name and (kind, method) in (("list", "append"), ("set", "add"))
            return source.segment(value) if fits and not isinstance(value, ast.Starred) else None
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=owner), slice=key)], value=value):
            fits = owner == name and kind == "dict" and not isinstance(key, ast.Slice)
            return f"{source.segment(key)}: {source.segment(value)}" if fits else None
        case _:
            return None


def _is_used_after(loop: ast.For, block: list[ast.stmt]) -> bool:
    """Whether the loop's variables, which a comprehension does not leave behind, are read later."""
    variables = stored_names(ast.walk(loop.target))
    later = block[block.index(loop) + 1 :]
    return bool(variables & loaded_names(node for statement in later for node in ast.walk(statement)))


REWRITE = Rewrite(name="loop_to_comprehension", propose=propose, weight=8.0)
