"""Mistakes in what is returned, awaited, kept, asked and named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.python.conditions import negate
from train.data.synthetic.python.mistakes import Mistake, own_nodes, swap, tick
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import parameters, stored_names, walk_own

_MUTABLES = ("[]", "{}", "set()", "list()", "dict()")


def missing_return(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """The last value is computed but not returned."""
    last = function.body[-1]
    if not isinstance(last, ast.Return) or last.value is None or isinstance(last.value, ast.Constant | ast.Tuple):
        return
    text = source.segment(last.value)
    if isinstance(last.value, ast.Name) and len(function.body) > 1:
        before = function.body[-2]
        end = source.lines(last)
        start = source.lines(before).end
        if source.text[start : end.start].strip():
            start = end.start
        yield Mistake(
            start,
            end.end,
            "",
            f"{tick(function.name)} always returns None",
            f"Return {tick(text)} at the end of {tick(function.name)}",
        )
    elif isinstance(last.value, ast.Call | ast.Await):
        value_start = source.start(last.value)
        head = source.text[source.start(last) : value_start]
        if head == "return ":
            yield Mistake(
                source.start(last),
                value_start,
                "",
                f"the result is lost, {tick(function.name)} returns None",
                f"Return the value of {tick(text)}" if len(text) < 50 else "Return the value of the last statement",
            )


def wrong_variable(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """Another variable of the function in place of the right one."""
    own = list(walk_own(function))
    names = {argument.arg for argument in parameters(function)} | stored_names(iter(own))
    names -= {"self", "cls", "_"}
    for node in own_nodes(function, ast.Name, generator):
        others = sorted(name for name in names if name != node.id and _resemble(name, node.id))
        is_target = not isinstance(node.ctx, ast.Load) or node.id not in names
        assigned_before = [name for name in others if _is_bound_before(function, name, node)]
        if is_target or not assigned_before or source.segment(node) != node.id:
            continue
        wrong = generator.choice(assigned_before)
        yield swap(source, node, wrong, f"{tick(wrong)} is used where {tick(node.id)} is meant")


def inverted_condition(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """The opposite of the right condition."""
    nodes: list[ast.If | ast.While] = [
        *own_nodes(function, ast.If, generator),
        *own_nodes(function, ast.While, generator),
    ]
    for node in nodes:
        opposite = negate(source, node.test)
        if opposite is not None and not isinstance(node.test, ast.BoolOp):
            yield swap(source, node.test, opposite, f"the condition {tick(opposite)} is inverted")


def mutable_default(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """A mutable default in place of None and the assignment in the body."""
    positional = [*function.args.posonlyargs, *function.args.args]
    defaults = dict(
        zip(
            [a.arg for a in positional[len(positional) - len(function.args.defaults) :]],
            function.args.defaults,
            strict=True,
        )
    )
    defaults |= {
        a.arg: d for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True) if d is not None
    }
    for statement in function.body:
        match statement:
            case ast.If(
                test=ast.Compare(left=ast.Name(id=name), ops=[ast.Is()], comparators=[ast.Constant(value=None)]),
                body=[ast.Assign(targets=[ast.Name(id=target)], value=value)],
                orelse=[],
            ) if name == target and name in defaults and ast.unparse(value) in _MUTABLES:
                default = defaults[name]
                if not isinstance(default, ast.Constant) or default.value is not None:
                    continue
                start, end = source.start(default), source.lines(statement).end
                between = source.text[source.end(default) : source.lines(statement).start]
                yield Mistake(
                    start, end, f"{ast.unparse(value)}{between}",
                    f"calls of {tick(function.name)} share the mutable default of {tick(name)}",
                    f"Use None as the default of {tick(name)} and make the {tick(ast.unparse(value))} inside",
                )  # fmt: skip


def missing_await(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """A coroutine that nobody awaits."""
    for node in own_nodes(function, ast.Await, generator):
        text = source.segment(node.value)
        if len(text) < 60 and "\n" not in text:
            yield swap(source, node, text, f"{tick(text)} is never awaited", remedy=f"Await {tick(text)}")


def lost_accumulation(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """``=`` where ``+=`` is right."""
    for node in own_nodes(function, ast.AugAssign, generator):
        target = source.segment(node.target)
        start, end = source.end(node.target), source.start(node.value)
        operator = source.text[start:end].strip()
        if operator in ("+=", "-=", "|=", "*="):
            yield Mistake(
                start, end, " = ", f"{tick(target)} is overwritten instead of accumulated",
                f"Use {tick(operator)} for {tick(target)}",
            )  # fmt: skip


def wrong_boolean(source: PythonSource, function: Function, generator: Random) -> Iterator[Mistake]:
    """True for False in a return or an assignment."""
    nodes: list[ast.Return | ast.Assign] = [
        *own_nodes(function, ast.Return, generator),
        *own_nodes(function, ast.Assign, generator),
    ]
    for node in nodes:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool):
            right = node.value.value
            verb = "returns" if isinstance(node, ast.Return) else "sets"
            what = "" if isinstance(node, ast.Return) else f" {tick(source.segment(node.targets[0]))} to"
            yield swap(
                source,
                node.value,
                str(not right),
                f"{tick(function.name)} {verb}{what} {not right} where it should be {right}",
            )


def _is_bound_before(function: Function, name: str, node: ast.Name) -> bool:
    """Whether the name has a value where the node stands: a parameter, or assigned on an earlier line."""
    if any(argument.arg == name for argument in parameters(function)):
        return True
    return any(
        isinstance(child, ast.Name)
        and child.id == name
        and isinstance(child.ctx, ast.Store)
        and child.lineno < node.lineno
        for child in walk_own(function)
    )


def _resemble(first: str, second: str) -> bool:
    """Whether a person might take one name for the other: alike in length, or with a common part."""
    parts = set(first.split("_")) & set(second.split("_"))
    return bool(parts) or abs(len(first) - len(second)) <= 3
