"""Rename a function or method, with its uses in the file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.naming import rename_action
from train.data.synthetic.patches import Patch, Span
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import parameters

_WORDINGS = (
    "Rename the function {old} to {new}",
    "Rename {old} to {new}",
    "Rename {old} to {new} and update all of its uses",
    "rename {old}() to {new}()",
    "{old} should be called {new}",
    "Change the name of {old} to {new}, including where it is called",
    "Call this function {new} instead of {old}",
    "{old} -> {new}",
    "The name {old} is misleading; use {new} and adapt the callers",
    "Use {new} as the name of {old}",
    "Can we rename {old}? {new} says better what it does.",
    "Rename the function {old} to {new}. Make sure that every call in this code uses the new name.",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Renames of functions that are used in the file, or else of any."""
    functions = [function for function in source.functions if not function.name.startswith("__")]
    generator.shuffle(functions)
    for function in functions:
        owner = source.parents.get(function)
        if isinstance(owner, ast.Module):
            spans = _plain_uses(source, function)
        elif isinstance(owner, ast.ClassDef) and not function.decorator_list:
            spans = _method_uses(source, function)
        else:
            continue
        new = rename_action(function.name, source.identifiers, generator)
        if new is None or spans is None or (len(spans) < 2 and generator.random() < 0.5):
            continue
        yield Proposal(
            patches=tuple(Patch(span.start, span.end, new) for span in spans),
            wordings=_WORDINGS,
            slots={"old": function.name, "new": new},
        )


def _definition(source: PythonSource, function: Function) -> Span:
    start = source.text.index(function.name, source.start(function) + len("def"))
    return Span(start, start + len(function.name))


def _plain_uses(source: PythonSource, function: Function) -> list[Span] | None:
    """The definition, the names that refer to it, and its mention in ``__all__``."""
    name = function.name
    spans = [_definition(source, function)]
    for other in source.functions:
        if (other is not function and other.name == name) or any(part.arg == name for part in parameters(other)):
            return None
    for node in source.nodes(ast.Name):
        if node.id == name:
            if not isinstance(node.ctx, ast.Load):
                return None
            spans.append(Span(source.start(node), source.end(node)))
    for constant in source.nodes(ast.Constant):
        if constant.value == name:
            spans.append(Span(source.start(constant) + 1, source.end(constant) - 1))
    return _verified(source, spans, name)


def _method_uses(source: PythonSource, function: Function) -> list[Span] | None:
    """The definition and ``self.name`` in the class; None where others may call or override it."""
    name = function.name
    if sum(other.name == name for other in source.functions) > 1 or name in _assigned(source):
        return None
    spans = [_definition(source, function)]
    own = source.class_of(function)
    for node in source.nodes(ast.Attribute):
        if node.attr != name:
            continue
        is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if not is_own or own is None or not source.is_inside(node, own):
            return None
        spans.append(Span(source.end(node) - len(name), source.end(node)))
    if any(constant.value == name for constant in source.nodes(ast.Constant)):
        return None
    return _verified(source, spans, name)


def _assigned(source: PythonSource) -> set[str]:
    return {node.id for node in source.nodes(ast.Name)}


def _verified(source: PythonSource, spans: list[Span], name: str) -> list[Span] | None:
    spans = sorted(set(spans))
    return spans if all(source.text[span.start : span.end] == name for span in spans) else None


REWRITE = Rewrite(name="rename_function", propose=propose, weight=1.0)
