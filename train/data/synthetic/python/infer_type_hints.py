"""Add the type hints that follow from defaults and returned values, to a function without any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import parameters, walk_own

_WORDINGS = (
    "Add type hints to {name}",
    "Annotate {name} with types",
    "type hints for {name}",
    "Add type annotations to {name} where the type is clear",
    "{name} is not typed, add annotations",
    "Give {name} type annotations",
    "Write the signature of {name} with types",
    "Can the signature of {name} have type hints?",
    "Add simple type hints (no new imports) to {name}",
)
_PARAMETER_WORDINGS = (
    "Add the types that follow from the defaults and the return value to {name}",
    "Type the parameters of {name}",
    "Give {name} type annotations, derived from its default values and from what it returns",
    "The defaults of {name} show its types: write them down as annotations",
)
_RETURN_WORDINGS = (
    "Add a return type to {name}",
    "Annotate what {name} returns",
    "return annotation for {name}",
    "What does {name} return? Annotate it.",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Functions whose every parameter has a literal default, or that have no parameters."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        if function.returns is not None or any(argument.annotation for argument in parameters(function)):
            continue
        patches = _hints(source, function)
        if patches:
            yield Proposal(
                patches=tuple(patches),
                wordings=_WORDINGS + (_PARAMETER_WORDINGS if len(patches) > 1 else _RETURN_WORDINGS),
                slots={"name": function.name},
            )


def _hints(source: PythonSource, function: Function) -> list[Patch]:
    """Patches that add all hints; empty where one of them is not certain."""
    if function.args.vararg or function.args.kwarg:
        return []
    positional = [*function.args.posonlyargs, *function.args.args]
    missing = len(positional) - len(function.args.defaults)
    defaults: list[ast.expr | None] = [*[None] * missing, *function.args.defaults, *function.args.kw_defaults]
    patches: list[Patch] = []
    for argument, default in zip([*positional, *function.args.kwonlyargs], defaults, strict=True):
        if argument.arg in ("self", "cls"):
            continue
        hint = literal_type(default) if default is not None else None
        if hint is None or default is None:
            return []
        patches.append(Patch(source.end(argument), source.start(default), f": {hint} = "))
    returned = _return_type(function)
    close = _closing_parenthesis(source, function)
    if returned is None or close is None:
        return []
    patches.append(Patch(close, close, f" -> {returned}"))
    return patches


def literal_type(node: ast.expr) -> str | None:
    """The type of a literal that is not None, as a name; None where it is not sure."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | bytes()):
            return type(node.value).__name__
        case ast.JoinedStr():
            return "str"
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return type(node.operand.value).__name__ if isinstance(node.operand, ast.Constant) else None
        case ast.UnaryOp(op=ast.Not()) | ast.Compare():
            return "bool"
        case _:
            return None


def _return_type(function: Function) -> str | None:
    returns = [node for node in walk_own(function) if isinstance(node, ast.Return)]
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in walk_own(function)):
        return None
    if all(node.value is None for node in returns):
        return "None" if function.body else None
    kinds = {literal_type(node.value) if node.value is not None else None for node in returns}
    always = isinstance(function.body[-1], ast.Return)
    return kinds.pop() if len(kinds) == 1 and always else None


def _closing_parenthesis(source: PythonSource, function: Function) -> int | None:
    """Just behind the parenthesis that ends the parameters."""
    colon = source.text.rfind(":", 0, source.start(function.body[0]))
    header = source.text[source.start(function) : source.start(function.body[0])]
    if "#" in header or not source.text[:colon].rstrip().endswith(")"):
        return None
    return len(source.text[:colon].rstrip())


REWRITE = Rewrite(name="infer_type_hints", propose=propose, weight=1.0)
