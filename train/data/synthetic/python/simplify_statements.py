"""Statements that the user starts with in a longer form than the author's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.python.conditions import negate
from train.data.synthetic.python.simplify import simplification
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import has_effects


def augmented_assignment(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``x = x + 1`` for ``x += 1``."""
    for node in source.nodes(ast.AugAssign):
        target, value = source.segment(node.target), source.segment(node.value)
        operator = source.text[source.end(node.target) : source.start(node.value)].strip().rstrip("=")
        if isinstance(node.value, ast.Constant | ast.Name | ast.Attribute | ast.Call) and not has_effects(node.target):
            yield node, source.replace(node, f"{target} = {target} {operator} {value}"), source.segment(node)


def conditional_expression(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """An ``if`` statement for a conditional expression that is assigned or returned."""
    statements: list[ast.Assign | ast.Return] = [*source.nodes(ast.Assign), *source.nodes(ast.Return)]
    for node in statements:
        value = node.value
        span = source.lines(node)
        if not isinstance(value, ast.IfExp) or not source.has_own_lines(node) or source.has_comment(span):
            continue
        head = source.text[source.start(node) : source.start(value)]
        if "(" in head or "\n" in source.segment(node):
            continue
        indent = source.indent(node)
        test, body, other = (source.segment(part) for part in (value.test, value.body, value.orelse))
        text = f"{indent}if {test}:\n{indent}    {head}{body}\n{indent}else:\n{indent}    {head}{other}\n"
        yield node, Patch(span.start, span.end, text), source.segment(node)


def dict_get(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``if key in d: x = d[key]`` / ``else`` for ``x = d.get(key, default)``."""
    for node in source.nodes(ast.Assign):
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr="get"),
                    args=[ast.Constant(value=str()) as key, default],
                    keywords=[],
                ),
            ):
                pass
            case _:
                continue
        if not source.has_own_lines(node) or has_effects(default) or source.has_comment(source.lines(node)):
            continue
        indent, mapping, where = source.indent(node), source.segment(owner), source.segment(key)
        text = (
            f"{indent}if {where} in {mapping}:\n{indent}    {name} = {mapping}[{where}]\n"
            f"{indent}else:\n{indent}    {name} = {source.segment(default)}\n"
        )
        span = source.lines(node)
        yield node, Patch(span.start, span.end, text), source.segment(node)


def any_or_all(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """A loop that returns True or False for ``return any(...)`` and ``return all(...)``."""
    for node in source.nodes(ast.Return):
        match node.value:
            case ast.Call(
                func=ast.Name(id="any" | "all" as which), args=[ast.GeneratorExp(elt=element, generators=[clause])]
            ):
                pass
            case _:
                continue
        span = source.lines(node)
        test = source.segment(element) if which == "any" else negate(source, element)
        if test is None or clause.ifs or clause.is_async or source.has_comment(span) or not source.has_own_lines(node):
            continue
        indent = source.indent(node)
        found, missing = ("True", "False") if which == "any" else ("False", "True")
        text = (
            f"{indent}for {source.segment(clause.target)} in {source.segment(clause.iter)}:\n"
            f"{indent}    if {test}:\n{indent}        return {found}\n{indent}return {missing}\n"
        )
        yield node, Patch(span.start, span.end, text), source.segment(node)


def returned_condition(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``if test: return True`` / ``return False`` for ``return test``."""
    for node in source.nodes(ast.Return):
        value = node.value
        is_bool = isinstance(value, ast.Compare) or (
            isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "isinstance"
        )
        if value is None or not is_bool or not source.has_own_lines(node) or source.has_comment(source.lines(node)):
            continue
        indent = source.indent(node)
        form = generator.choice(
            (
                "{i}if {t}:\n{i}    return True\n{i}return False\n",
                "{i}if {t}:\n{i}    return True\n{i}else:\n{i}    return False\n",
            )
        )
        span = source.lines(node)
        yield node, Patch(span.start, span.end, form.format(i=indent, t=source.segment(value))), source.segment(node)


def default_by_or(source: PythonSource, generator: Random) -> Iterator[tuple[ast.AST, Patch, str]]:
    """``if not x: x = y`` for ``x = x or y``."""
    for node in source.nodes(ast.Assign):
        match node:
            case ast.Assign(targets=[target], value=ast.BoolOp(op=ast.Or(), values=[first, second])):
                same = source.segment(target) == source.segment(first)
                if same and source.has_own_lines(node) and not source.has_comment(source.lines(node)):
                    indent, name = source.indent(node), source.segment(target)
                    span = source.lines(node)
                    text = f"{indent}if not {name}:\n{indent}    {name} = {source.segment(second)}\n"
                    yield node, Patch(span.start, span.end, text), source.segment(node)
            case _:
                continue


REWRITES = (
    simplification(
        "augmented_assignment",
        augmented_assignment,
        0.5,
        (
            "Use an augmented assignment",
            "Use {code}",
            "Shorten the assignment in {function}",
            "write this as {code}",
            "Simplify the update to {code}",
            "Replace the assignment by {code}",
            "Can this be an augmented assignment?",
            "Use the in-place operator in {function}",
            "Rewrite x = x + y in {function} with an augmented assignment operator",
        ),
    ),
    simplification(
        "conditional_expression",
        conditional_expression,
        2.0,
        (
            "Use a conditional expression",
            "Use a ternary",
            "Replace the if/else by a conditional expression",
            "Write this if/else in one line",
            "Simplify the if/else in {function} to {code}",
            "Shorten {function} with a ternary expression",
            "{code}",
            "make this a one-liner",
            "The if statement only chooses between two values: use a conditional expression",
        ),
    ),
    simplification(
        "dict_get",
        dict_get,
        4.0,
        (
            "Use dict.get",
            "Use {code}",
            "Replace the if/else by a call of get with a default",
            "Simplify the lookup with .get()",
            "use .get()",
            "Shorten the dictionary lookup in {function}",
            "Use the default argument of get instead of testing for the key",
            "Simplify {function}: {code}",
            "Look the key up once, with a default",
        ),
    ),
    simplification(
        "any_all",
        any_or_all,
        6.0,
        (
            "Use any() or all()",
            "Replace the loop in {function} by {code}",
            "Simplify the loop",
            "Use a generator expression: {code}",
            "{function} can be one line",
            "Rewrite the loop that returns True or False with any/all",
            "Make {function} shorter",
            "The loop in {function} only checks a condition for all elements, use a builtin for that",
            "use any/all",
        ),
    ),
    simplification(
        "returned_condition",
        returned_condition,
        2.0,
        (
            "Return the condition directly",
            "Simplify the return",
            "Replace the if by {code}",
            "{code}",
            "No need for if here, return the condition",
            "Simplify {function}: return the boolean expression itself",
            "Remove the redundant if in {function}",
            "return the comparison",
            "SIM103: return the condition directly",
        ),
    ),
    simplification(
        "default_by_or",
        default_by_or,
        5.0,
        (
            "Use or to set the default",
            "Simplify to {code}",
            "Replace the if by {code}",
            "{code}",
            "Shorten how the default is set in {function}",
            "Set the default in one line",
            "Use {code} in {function} instead of the if statement",
            "Fold the if into one assignment with or",
        ),
    ),
)
