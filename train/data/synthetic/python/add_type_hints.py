"""Add the type hints that the author wrote to a function that is shown without them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import parameters

_ALL_WORDINGS = (
    "Add type hints to {name}",
    "Add type annotations to {name}",
    "annotate {name}",
    "type hints",
    "Type the signature of {name}",
    "Add types to the parameters and the return value of {name}",
    "{name} has no type hints; add them",
    "Annotate the parameters and the return type of {name}",
    "Make {name} fully typed",
    "Add type annotations so that mypy can check {name}",
    "What are the types here? Annotate {name}.",
    "Fill in the missing type hints of {name}",
    "Annotate {name} with types. {types_text}.",
    "Add type hints to {name}: {types_text}",
)
_RETURN_WORDINGS = (
    "Add a return type to {name}",
    "Annotate the return value of {name}",
    "{name} returns {returned}, annotate that",
    "Add the return annotation {returned} to {name}",
    "return type for {name}",
    "The return type of {name} is missing",
    "State in the signature what {name} returns",
    "Add {arrow} to {name}",
    "Declare that {name} returns {returned}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Hints of random functions; sometimes only the return type."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        removals = hint_removals(source, function)
        if not removals or len(removals) < sum(a.arg not in ("self", "cls") for a in parameters(function)):
            continue
        returned = source.segment(function.returns) if function.returns else ""
        only_return = bool(returned) and generator.random() < 0.2
        if only_return:
            removals = removals[-1:]
        yield Proposal(
            patches=tuple(removals),
            wordings=_RETURN_WORDINGS if only_return else _ALL_WORDINGS,
            slots={
                "name": function.name,
                "returned": returned,
                "arrow": f"-> {returned}",
                "types_text": describe_types(source, function),
            },
            is_restored=True,
        )


def hint_removals(source: PythonSource, function: Function) -> list[Patch]:
    """Patches that take away every annotation, the return type's last; empty where there is none."""
    patches: list[Patch] = []
    for argument in parameters(function):
        if argument.annotation is None:
            continue
        end = source.end(argument.annotation)
        # With a type, the default is written " = 3"; without, "=3".
        default = source.text[end : end + 3]
        patches.append(
            Patch(
                source.start(argument) + len(argument.arg),
                end + 3 if default == " = " else end,
                "=" if default == " = " else "",
            )
        )
    if function.returns is not None:
        arrow = source.text.rfind("->", 0, source.start(function.returns))
        patches.append(Patch(len(source.text[:arrow].rstrip()), source.end(function.returns), ""))
    return patches


def describe_types(source: PythonSource, function: Function) -> str:
    """The types in words: ``limit is int and it returns str``."""
    typed = [a for a in parameters(function) if a.annotation is not None]
    pieces = [f"{argument.arg} is {source.segment(argument.annotation)}" for argument in typed if argument.annotation]
    if function.returns is not None and not isinstance(function.returns, ast.Constant):
        pieces.append(f"it returns {source.segment(function.returns)}")
    elif function.returns is not None:
        pieces.append(
            "it returns nothing"
            if source.segment(function.returns) == "None"
            else f"it returns {source.segment(function.returns)}"
        )
    return " and ".join([", ".join(pieces[:-1]), pieces[-1]]) if len(pieces) > 1 else "".join(pieces)


REWRITE = Rewrite(name="add_type_hints", propose=propose, weight=0.7)
