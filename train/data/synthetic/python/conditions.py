"""The opposite of a condition, as a person would write it."""

from __future__ import annotations

import ast

from train.data.synthetic.python_source import PythonSource

_OPPOSITES: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: ">=",
    ast.LtE: ">",
    ast.Gt: "<=",
    ast.GtE: "<",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}


def negate(source: PythonSource, test: ast.expr) -> str | None:
    """The text of the opposite condition; None for what is too long to stay readable."""
    text = source.segment(test)
    if "\n" in text or len(text) > 70:
        return None
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return source.segment(operand)
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            return f"{source.segment(left)} {_OPPOSITES[type(operator)]} {source.segment(right)}"
        case ast.BoolOp(values=parts):
            joiner = " or " if isinstance(test.op, ast.And) else " and "
            pieces = [negate(source, part) for part in parts]
            if any(piece is None for piece in pieces) or any(isinstance(part, ast.BoolOp) for part in parts):
                return None
            return joiner.join(piece for piece in pieces if piece is not None)
        case ast.Name() | ast.Attribute() | ast.Call() | ast.Subscript():
            return f"not {text}"
        case _:
            return None
