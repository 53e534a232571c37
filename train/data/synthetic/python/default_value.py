"""Give a parameter the default value that the author gave it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource

_WORDINGS = (
    "Give {name} a default of {value}",
    "Make {name} optional, default {value}",
    "{name} should default to {value}",
    "Add the default value {value} for {name} in {function}",
    "default {name} to {value}",
    "The parameter {name} of {function} should be optional and be {value} if it is not given",
    "Set a default value for {name}: {value}",
    "Callers of {function} should not have to pass {name}. Use {value} by default.",
    "Let {function} be called without {name} (default: {value})",
    "Use {value} as the default for the {name} parameter",
    "{signature}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """The first default among the positional parameters, or one of the keyword-only ones."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        found = list(_removable(function))
        if not found:
            continue
        argument, default = generator.choice(found)
        value = source.segment(default)
        if len(value) > 40 or "\n" in value:
            continue
        yield Proposal(
            patches=(Patch(source.end(argument), source.end(default), ""),),
            wordings=_WORDINGS,
            slots={
                "name": argument.arg,
                "value": value,
                "function": function.name,
                "signature": f"{function.name}({argument.arg}={value})",
            },
            is_restored=True,
        )


def _removable(function: Function) -> Iterator[tuple[ast.arg, ast.expr]]:
    positional = [*function.args.posonlyargs, *function.args.args]
    if function.args.defaults:
        yield positional[-len(function.args.defaults)], function.args.defaults[0]
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if default is not None:
            yield argument, default


REWRITE = Rewrite(name="default_value", propose=propose, weight=0.7)
