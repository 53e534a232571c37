"""Rename a local variable or a parameter, with all its uses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.naming import rename_value
from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import docstring_of, find_local_uses, local_variables, parameters

VARIABLE_WORDINGS = (
    "Rename {old} to {new} in {function}",
    "Rename the variable {old} to {new}",
    "rename {old} -> {new}",
    "{old} is not a good name, call it {new}",
    "Use {new} instead of {old} as the variable name in {function}",
    "The local variable {old} in {function} should be called {new}",
    "{old} to {new}",
    "Give {old} a clearer name: {new}",
    "In {function}, rename the local variable {old} to {new} everywhere it is used. Do not change anything else.",
    "Change the name of the variable {old} to {new}, because {old} does not say what it holds",
    "Could {old} be named {new}?",
    "Replace the variable name {old} by {new} throughout {function}",
)
_PARAMETER_WORDINGS = (
    "Rename the parameter {old} of {function} to {new}",
    "Rename the argument {old} to {new}",
    "The parameter {old} should be called {new}",
    "rename {old} -> {new}",
    "{function}: rename parameter {old} to {new} and update its uses in the body",
    "Change the name of {function}'s argument {old} to {new}",
    "Call the parameter {new} instead of {old}",
    "Use {new} instead of {old} as the name of the parameter",
    "Rename {old} to {new} in the signature and body of {function}",
    "I would like the {old} argument of {function} to be named {new}, also in the docstring",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Renames in random functions."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        passed = {argument.arg for argument in parameters(function)} - {"self", "cls"}
        names = [*local_variables(function), *(passed if _has_free_signature(function) else ())]
        names = sorted(name for name in names if not name.startswith("_"))
        generator.shuffle(names)
        for old in names[:3]:
            proposal = _rename(source, function, old, old in passed, generator)
            if proposal is not None:
                yield proposal
                break


def _has_free_signature(function: Function) -> bool:
    """Whether nothing but its callers depends on the parameters' names: no decorator, no protocol of the language."""
    return not function.decorator_list and not re.fullmatch("__.*__", function.name.replace("__init__", ""))


def _rename(
    source: PythonSource, function: Function, old: str, is_parameter: bool, generator: Random
) -> Proposal | None:
    new = rename_value(old, source.identifiers, generator)
    spans = find_local_uses(source, function, old)
    if new is None or spans is None or len(spans) < 2:
        return None
    patches = {Patch(span.start, span.end, new) for span in spans}
    if is_parameter:
        keywords = _keyword_uses(source, function, old)
        if keywords is None:
            return None
        patches |= {Patch(start, start + len(old), new) for start in keywords}
        patches |= set(_docstring_patches(source, function, old, new))
    return Proposal(
        patches=tuple(sorted(patches)),
        wordings=_PARAMETER_WORDINGS if is_parameter else VARIABLE_WORDINGS,
        slots={"old": old, "new": new, "function": function.name},
        check=None if is_parameter else lambda before, after: _is_rename(before, after, old, new),
    )


def _keyword_uses(source: PythonSource, function: Function, name: str) -> list[int] | None:
    """Where callers in this file pass the parameter by name; None where a call cannot be attributed for sure."""
    starts: list[int] = []
    for call in source.nodes(ast.Call):
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        is_ours = called == function.name or (
            function.name == "__init__" and called == getattr(source.class_of(function), "name", "")
        )
        if not is_ours:
            continue
        for keyword in call.keywords:
            if keyword.arg is None:
                return None
            if keyword.arg == name:
                starts.append(source.start(keyword))
    return starts


def _docstring_patches(source: PythonSource, function: Function, old: str, new: str) -> Iterator[Patch]:
    """The parameter's name where the docstring describes it: ``:param x:``, ``x: ...`` or in backticks."""
    docstring = docstring_of(function)
    if docstring is None:
        return
    start = source.start(docstring)
    described = rf"(?<=:param ){old}\b|(?<=`){old}(?=`)|(?<=    ){old}(?= ?[:(])"
    for match in re.finditer(described, source.segment(docstring)):
        yield Patch(start + match.start(), start + match.end(), new)


def _is_rename(before: str, after: str, old: str, new: str) -> bool:
    """Whether giving the new name back yields the very program that was there before."""
    return re.sub(rf"\b{new}\b", old, after) == re.sub(rf"\b{new}\b", old, before)


REWRITE = Rewrite(name="rename_variable", propose=propose, weight=0.8)
