"""Give a literal inside a function a name, as a constant of the module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.naming import split_words
from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.calls import CALLEES_OWN
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import is_test

WORDINGS = (
    "Extract {value} into a constant {name}",
    "Move {value} to a module-level constant named {name}",
    "No magic values: put {value} into a constant",
    "introduce constant {name}",
    "Replace the magic value {value} in {function} by the constant {name}",
    "{value} should be a named constant, {name}",
    "Define {definition} above {owner} and use it",
    "Create a constant {name} for {value}",
    "Pull the literal {value} out of {function} into {name}",
    "Use a constant {name} instead of the hard-coded {value}",
    "Name the value {value}: {name}, at the top level of the module",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Numbers and texts whose place gives them a name."""
    nodes = source.nodes(ast.Constant)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        if function is None or is_test(function) or not _is_magic(node.value) or not _is_in_body(source, node):
            continue
        word = _name_from_place(source, node)
        owner = next((part for part in source.tree.body if source.is_inside(node, part)), None)
        if word is None or not isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = "_".join(split_words(word)).upper()
        value = source.segment(node)
        if name in source.identifiers or not name.isidentifier() or len(name) < 4 or len(value) > 60 or "\n" in value:
            continue
        same = [
            other
            for other in source.nodes(ast.Constant)
            if source.segment(other) == value and source.is_inside(other, owner) and _is_in_body(source, other)
        ]
        if not all(_name_from_place(source, other) == word for other in same):
            same = [node]
        above = source.lines(owner).start
        yield Proposal(
            patches=(Patch(above, above, f"{name} = {value}\n\n\n"), *[source.replace(other, name) for other in same]),
            wordings=WORDINGS,
            slots={
                "value": value,
                "definition": f"{name} = {value}",
                "name": name,
                "function": function.name,
                "owner": owner.name,
            },
        )


def _is_magic(value: object) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    if isinstance(value, int | float):
        return value not in (0, 1, -1, 2)
    return isinstance(value, str) and len(value) > 3


def _is_in_body(source: PythonSource, node: ast.Constant) -> bool:
    """Whether the literal is code that runs: no docstring, annotation, default, f-string part, pattern or decorator."""
    child: ast.AST = node
    for outer in source.ancestors(node):
        if isinstance(outer, ast.JoinedStr | ast.Expr | ast.match_case | ast.AnnAssign | ast.arg | ast.arguments):
            return isinstance(outer, ast.Expr) and child is not node
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            return child in outer.body
        child = outer
    return False


def _name_from_place(source: PythonSource, node: ast.Constant) -> str | None:
    """What the literal is called where it stands: a keyword, a variable, or the other side of a comparison."""
    parent = source.parents[node]
    match parent:
        case ast.keyword(arg=str(name)):
            if name in CALLEES_OWN:
                return None
            call = source.parents[parent]
            called = ast.unparse(call.func).split(".")[-1] if isinstance(call, ast.Call) else ""
            if isinstance(node.value, str) and len(node.value.split()) > 2:
                return None
            return (
                f"{called}_{name}"
                if isinstance(node.value, int | float) and re.fullmatch("[a-z_]{3,12}", called) and len(name) < 8
                else f"default_{name}"
            )
        case ast.Assign(targets=[ast.Name(id=name)]):
            return f"default_{name}" if len(split_words(name)) < 2 else name
        case ast.Compare(left=left, ops=[ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE()], comparators=[_]):
            other = left if left is not node else parent.comparators[0]
            return _limit_name(other, is_upper=isinstance(parent.ops[0], ast.Gt | ast.GtE) == (left is not node))
        case ast.Call(func=ast.Attribute(attr="sleep")):
            return "sleep_seconds"
        case _:
            return None


def _limit_name(node: ast.expr, *, is_upper: bool) -> str | None:
    word = "max" if is_upper else "min"
    match node:
        case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=name) | ast.Attribute(attr=name)]):
            return f"{word}_{name}_length" if not name.endswith("s") else f"{word}_{name}"
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return f"{word}_{name}" if len(name) > 2 else None
        case _:
            return None


REWRITE = Rewrite(name="extract_constant", propose=propose, weight=2.5)
