"""Mistakes in operators, bounds and the order of operands."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.python.mistakes import Mistake, own_nodes, swap, tick
from train.data.synthetic.python_source import Function, PythonSource

_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}
_WRONG_COMPARISON = {
    "==": "!=",
    "!=": "==",
    "<": ">",
    ">": "<",
    "<=": ">=",
    ">=": "<=",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
}
_WRONG_BOUND = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_WRONG_OPERATOR = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "%": "//"}


def wrong_comparison(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """Another comparison operator than the right one."""
    for node in own_nodes(function, ast.Compare, generator):
        if len(node.ops) == 1 and len(source.segment(node)) < 60:
            right = _SYMBOLS[type(node.ops[0])]
            yield from _change_operator(
                source, node, right, _WRONG_COMPARISON[right], "the comparison is the wrong way round"
            )


def off_by_one(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """A bound or an index that is one too far or not far enough."""
    nodes = own_nodes(function, ast.AST, generator)
    for node in nodes:
        match node:
            case ast.Compare(ops=[operator], comparators=[_]) if _SYMBOLS[type(operator)] in _WRONG_BOUND:
                right = _SYMBOLS[type(operator)]
                yield from _change_operator(
                    source,
                    node,
                    right,
                    _WRONG_BOUND[right],
                    f"the boundary case of {tick(source.segment(node.left))} is handled wrongly",
                )
            case ast.Call(func=ast.Name(id="range"), args=[*_, ast.Call() | ast.Name() as stop]) if len(node.args) < 3:
                text = source.segment(stop)
                wrong = generator.choice((f"{text} - 1", f"{text} + 1"))
                seen = "the loop misses the last element" if "-" in wrong else "the loop runs one time too often"
                yield swap(source, stop, wrong, seen)
            case ast.BinOp(
                left=ast.Name() | ast.Call() | ast.Attribute() as left,
                op=ast.Add() | ast.Sub(),
                right=ast.Constant(value=1),
            ):
                yield swap(source, node, source.segment(left), "there is an off-by-one error")
            case ast.Subscript(slice=ast.Constant(value=int(index)) as place) if 0 <= index < 3:
                yield swap(
                    source,
                    place,
                    str(index + 1),
                    f"the wrong element of {tick(source.segment(node.value))} is used",
                    about=node,
                )


def swapped_operands(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """Operands or arguments in the wrong order."""
    for node in own_nodes(function, ast.AST, generator):
        match node:
            case ast.BinOp(op=ast.Sub() | ast.Div() | ast.FloorDiv() | ast.Mod(), left=left, right=right):
                operator = f" {_SYMBOLS[type(node.op)]} "
                if isinstance(left, ast.BinOp | ast.Constant | ast.JoinedStr) or isinstance(
                    right, ast.BinOp | ast.Tuple
                ):
                    continue
                text = source.segment(right) + operator + source.segment(left)
                if source.segment(node) == source.segment(left) + operator + source.segment(right):
                    yield swap(source, node, text, f"the operands of {tick(operator.strip())} are swapped")
            case ast.Call(args=[ast.Name() as first, ast.Name() as second, *_], func=called):
                if first.id == second.id or len(source.segment(called)) > 40:
                    continue
                start, end = source.start(first), source.end(second)
                between = source.text[source.end(first) : source.start(second)]
                name = source.segment(called)
                yield Mistake(
                    start, end, f"{second.id}{between}{first.id}",
                    f"{tick(name)} is called with its arguments in the wrong order",
                    f"Pass {tick(first.id)} before {tick(second.id)} to {tick(name)}",
                )  # fmt: skip


def wrong_operator(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """Another arithmetic operator than the right one."""
    for node in own_nodes(function, ast.BinOp, generator):
        right = _SYMBOLS.get(type(node.op), "")
        is_text = any(
            isinstance(child, ast.JoinedStr) or isinstance(getattr(child, "value", None), str)
            for child in ast.walk(node)
        )
        if right in _WRONG_OPERATOR and not is_text and len(source.segment(node)) < 60:
            yield from _change_operator(source, node, right, _WRONG_OPERATOR[right], "the calculation is wrong")


def wrong_connective(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """``and`` where ``or`` is right, or the other way round."""
    for node in own_nodes(function, ast.BoolOp, generator):
        if len(node.values) != 2 or len(source.segment(node)) > 80:
            continue
        right, wrong = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        start, end = source.end(node.values[0]), source.start(node.values[1])
        between = source.text[start:end]
        if between == f" {right} ":
            first, second = (tick(source.segment(value)) for value in node.values)
            seen = f"both conditions have to hold, not just one: {first} and {second}"
            other = "one of the two conditions is enough"
            yield Mistake(
                start,
                end,
                f" {wrong} ",
                seen if right == "and" else other,
                f"Use {tick(right)} instead of {tick(wrong)} in the condition",
            )


def _change_operator(
    source: PythonSource, node: ast.Compare | ast.BinOp, right: str, wrong: str, seen: str
) -> Iterator[Mistake]:
    """The node with another operator, where it stands between its operands in the plain form."""
    second = node.comparators[0] if isinstance(node, ast.Compare) else node.right
    start, end = source.end(node.left), source.start(second)
    if source.text[start:end] == f" {right} ":
        text = source.segment(node)
        shown = source.text[source.start(node) : start] + f" {wrong} " + source.text[end : source.end(node)]
        remedy = (
            f"{tick(shown)} should be {tick(text)}"
            if len(text) < 50 and "\n" not in text
            else f"Use {tick(right)} instead of {tick(wrong)}"
        )
        yield Mistake(start, end, f" {wrong} ", seen, remedy)
