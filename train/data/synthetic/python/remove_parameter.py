"""Remove a parameter that the function does not use, with the arguments at its calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.calls import calls_of
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import docstring_of, is_test, parameters

_WORDINGS = (
    "Remove the unused parameter {name} of {function}",
    "Remove {name} from the signature of {function}",
    "{name} is never used, remove it",
    "drop the parameter {name}",
    "Remove the argument {name} and update the calls of {function}",
    "{function} does not need {name}",
    "The parameter {name} of {function} has no effect. Remove it there and where the function is called.",
    "Delete the unused argument {name}",
    "Clean up the signature of {function}: {name} is not used",
    "Get rid of {function}'s {name} parameter",
)
_PLAIN_NAMES = (
    "verbose",
    "debug",
    "strict",
    "options",
    "context",
    "timeout",
    "encoding",
    "callback",
    "default",
    "flags",
    "mode",
    "logger",
    "force",
)
_VALUES = {
    "verbose": "False",
    "debug": "False",
    "strict": "True",
    "force": "False",
    "timeout": "30",
    "encoding": '"utf-8"',
}


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """An unused parameter put in at the end of a signature and passed at the calls, to be removed again."""
    functions = [
        function for function in source.functions if not is_test(function) and not function.name.startswith("__")
    ]
    generator.shuffle(functions)
    for function in functions:
        calls = calls_of(source, function)
        if calls is None or any(call.keywords or any(isinstance(a, ast.Starred) for a in call.args) for call in calls):
            continue
        seeded = _seed_unused(source, function, calls, generator)
        if seeded is not None:
            yield seeded


def _seed_unused(source: PythonSource, function: Function, calls: list[ast.Call], generator: Random) -> Proposal | None:
    """The function with one more parameter at its end, which is passed at every call."""
    arguments = function.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or function.decorator_list or docstring_of(function):
        return None
    known = parameters(function)
    free = [name for name in _PLAIN_NAMES if name not in source.identifiers]
    last: ast.expr | ast.arg | None = arguments.defaults[-1] if arguments.defaults else known[-1] if known else None
    if (
        last is None
        or not free
        or last.lineno != function.lineno
        or source.text[source.end(last) : source.end(last) + 1] != ")"
    ):
        return None
    name = generator.choice(free)
    value = _VALUES.get(name, "None")
    is_optional = bool(arguments.defaults) or not calls
    is_typed = any(argument.annotation for argument in known)
    hint = {"True": "bool", "False": "bool", "30": "float", '"utf-8"': "str"}.get(value, "") if is_typed else ""
    if is_typed and not hint:
        return None
    typed = f"{name}: {hint}" if hint else name
    default = "" if not is_optional else f" = {value}" if hint else f"={value}"
    end = source.end(last)
    patches = [Patch(end, end, f", {typed}{default}")]
    for call in calls:
        if is_optional and generator.random() < 0.5:
            continue
        close = source.end(call) - 1
        if re.search(r",\s*$", source.text[:close]) or call.lineno != call.end_lineno:
            return None
        passed = value if not is_optional else f"{name}={value}"
        patches.append(Patch(close, close, f", {passed}" if call.args else passed))
    return Proposal(
        patches=tuple(patches), wordings=_WORDINGS, slots={"name": name, "function": function.name}, is_restored=True
    )


REWRITE = Rewrite(name="remove_parameter", propose=propose, weight=1.0)
