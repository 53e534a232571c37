"""Expressions that the user starts with in a longer form than the author's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.python.simplify import simplification
from train.data.synthetic.python_source import PythonSource


def comparison_with_none(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``== None`` for ``is None``."""
    for node in source.nodes(ast.Compare):
        match node:
            case ast.Compare(
                left=left, ops=[ast.Is() | ast.IsNot() as operator], comparators=[ast.Constant(value=None)]
            ):
                symbol = "==" if isinstance(operator, ast.Is) else "!="
                yield node, source.replace(node, f"{source.segment(left)} {symbol} None"), source.segment(node)
            case _:
                continue


def membership(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``not x in y`` for ``x not in y``."""
    for node in source.nodes(ast.Compare):
        if (
            len(node.ops) == 1
            and isinstance(node.ops[0], ast.NotIn)
            and isinstance(source.parents[node], ast.If | ast.Assign | ast.Return)
        ):
            left, right = source.segment(node.left), source.segment(node.comparators[0])
            yield node, source.replace(node, f"not {left} in {right}"), source.segment(node)


def plain_super(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``super(Class, self)`` for ``super()``."""
    for node in source.nodes(ast.Call):
        function = source.function_of(node)
        owner = source.class_of(function) if function is not None else None
        if owner is None or not isinstance(node.func, ast.Name) or node.func.id != "super" or node.args:
            continue
        first = function.args.args[0].arg if function is not None and function.args.args else ""
        if first == "self":
            yield node, source.replace(node, f"super({owner.name}, self)"), "super()"


def emptiness(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``len(x) == 0`` for ``not x``."""
    iterated = _collections(source)
    for node in source.nodes(ast.If):
        match node.test:
            case ast.UnaryOp(op=ast.Not(), operand=ast.Name(id=name) as operand) if name in iterated:
                yield node, source.replace(node.test, f"len({source.segment(operand)}) == 0"), source.segment(node.test)
            case _:
                continue


def _collections(source: PythonSource) -> set[str]:
    """Names that the file loops over, measures or appends to."""
    loops: list[ast.For | ast.comprehension] = [*source.nodes(ast.For), *source.nodes(ast.comprehension)]
    found = {loop.iter.id for loop in loops if isinstance(loop.iter, ast.Name)}
    for call in source.nodes(ast.Call):
        match call:
            case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=name)]):
                found.add(name)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append" | "extend" | "pop")):
                found.add(name)
            case _:
                continue
    return found


REWRITES = (
    simplification(
        "is_none",
        comparison_with_none,
        0.5,
        (
            "Compare with None by identity",
            "Use {code}",
            "== None should be is None",
            "E711: comparison to None",
            "Fix the comparison with None in {function}",
            "None must be compared with is",
            "Use is/is not for None in {function}",
            "Replace the equality test against None by {code}",
            "Don't use == or != with None",
        ),
    ),
    simplification(
        "not_in",
        membership,
        1.0,
        (
            "Use not in",
            "Use {code}",
            "E713: test for membership should be 'not in'",
            "Write the membership test as {code}",
            "Fix the order of not and in in {function}",
            "Make the condition in {function} read naturally: {code}",
            "Simplify the membership test",
            "Use the not in operator in {function}",
        ),
    ),
    simplification(
        "plain_super",
        plain_super,
        0.7,
        (
            "Use super() without arguments",
            "Use the Python 3 form of super",
            "Modernise the super call",
            "super() needs no arguments",
            "Replace the old super call in {function} by super()",
            "Drop the arguments of super",
            "Simplify super(...) in {function}",
            "Python 2 style super in {function}: update it",
        ),
    ),
    simplification(
        "emptiness",
        emptiness,
        2.0,
        (
            "Test for emptiness with {code}",
            "Use the truth value instead of len",
            "Simplify the length check",
            "Don't compare len with 0",
            "Use {code} in {function}",
            "The check for an empty sequence should be {code}",
            "PLC1802: use the truthiness of the sequence",
            "Make the emptiness check in {function} more idiomatic",
            "len() == 0 is not needed",
        ),
    ),
)
