"""Turn a fixed value inside a function into a parameter, with call sites where it becomes required."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.calls import CALLEES_OWN, calls_of
from train.data.synthetic.python.infer_type_hints import literal_type
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import is_test, parameters, walk_own

_OPTIONAL_WORDINGS = (
    "Add a parameter {name} to {function} with the default {value}",
    "Make {value} configurable: add a parameter {name}",
    "Let callers of {function} choose {name} (default {value})",
    "add argument {argument}",
    "{function} should take {name} as an optional argument",
    "Replace the hard-coded {value} in {function} by a parameter {name}",
    "Parametrize {function} with {name}, keeping {value} as the default",
    "I want to be able to pass {name} to {function}; it should be {value} if not given",
    "Turn the constant {value} into a keyword argument {name} of {function}",
    "Add an optional {name} parameter. The default keeps today's behaviour ({value}).",
)
_REQUIRED_WORDINGS = (
    "Add a required parameter {name} to {function} and pass {value} where it is called",
    "Make {name} a parameter of {function} and update the callers",
    "Let the caller of {function} decide on {name}: no default, adapt all call sites to pass {value}",
    "Add {name} to the signature of {function}; existing calls should pass {value}",
    "Pass {name} to {function} instead of hard-coding {value} there",
    "{function} should get {name} from its callers",
    "add parameter {name} to {function}, update calls",
    "Move {value} from {function} to the places that call it, as the argument {name}",
)

# Name and value of the parameter to be, and the patch that puts it to use.
NamedLiteral = tuple[str, ast.expr, Patch]


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Literals that a keyword or an assignment names."""
    functions = [
        function
        for function in source.functions
        if not is_test(function) and not function.name.startswith("__") and not function.decorator_list
    ]
    generator.shuffle(functions)
    for function in functions:
        found = list(_named_literals(source, function))
        generator.shuffle(found)
        for name, value, patch in found:
            taken = {argument.arg for argument in parameters(function)} | {
                node.id
                for node in walk_own(function)
                if isinstance(node, ast.Name) and not (patch.text == "" and node.id == name)
            }
            place = _end_of_parameters(source, function)
            if name in taken or place is None or len(name) < 3 or name in CALLEES_OWN:
                continue
            proposal = _with_parameter(source, function, (name, value, patch), place, generator)
            if proposal is not None:
                yield proposal
                break


def _with_parameter(
    source: PythonSource, function: Function, found: NamedLiteral, place: tuple[int, str], generator: Random
) -> Proposal | None:
    name, value, patch = found
    position, comma = place
    text = source.segment(value)
    calls = calls_of(source, function)
    is_plain = not function.args.defaults and not function.args.kwonlyargs
    required = bool(calls) and is_plain and generator.random() < 0.6
    is_typed = function.returns is not None or any(argument.annotation for argument in parameters(function))
    hint = literal_type(value) if is_typed else None
    typed = f"{name}: {hint}" if hint else name
    equals = "" if required else f" = {text}" if hint else f"={text}"
    patches = [Patch(position, position, f"{comma}{typed}{equals}"), patch]
    if required:
        for call in calls or []:
            if any(isinstance(argument, ast.Starred) for argument in call.args) or call.keywords:
                return None
            close = source.end(call) - 1
            trailing = source.text[:close].rstrip().endswith(",")
            patches.append(Patch(close, close, text if not call.args or trailing else f", {text}"))
    return Proposal(
        patches=tuple(patches),
        wordings=_REQUIRED_WORDINGS if required else _OPTIONAL_WORDINGS,
        slots={"name": name, "value": text, "argument": f"{name}={text}", "function": function.name},
    )


def _named_literals(source: PythonSource, function: Function) -> Iterator[NamedLiteral]:
    """The literals of the function that something names."""
    for statement in function.body:
        match statement:
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.Constant(value=int() | float() | str() | bool()) as value
            ):
                stores = [
                    n
                    for n in walk_own(function)
                    if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
                ]
                span = source.lines(statement)
                if (
                    len(stores) == 1
                    and len(function.body) > 1
                    and value.value != ""
                    and source.has_own_lines(statement)
                ):
                    yield name, value, Patch(span.start, span.end, "")
            case _:
                continue
    for node in walk_own(function):
        if isinstance(node, ast.keyword) and node.arg and isinstance(node.value, ast.Constant):
            value = node.value
            if (
                isinstance(value.value, int | float | str)
                and len(source.segment(value)) < 30
                and "\n" not in source.segment(value)
            ):
                yield node.arg, value, source.replace(value, node.arg)


def _end_of_parameters(source: PythonSource, function: Function) -> tuple[int, str] | None:
    """Where a last parameter goes, and what separates it; None where the list has an unusual form."""
    arguments = function.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        return None
    known = parameters(function)
    if not known:
        start = source.text.index("(", source.start(function)) + 1
        return (start, "") if source.text[start : start + 1] == ")" else None
    last: ast.expr | ast.arg = arguments.defaults[-1] if arguments.defaults else known[-1]
    end = source.end(last)
    following = source.text[end:].lstrip()[:1]
    if function.lineno != last.lineno:
        line = source.text[source.line_of(source.start(known[-1])).start : source.start(known[-1])]
        return (end, f",\n{line}") if following == "," and not line.strip() else None
    return (end, ", ") if following == ")" else None


REWRITE = Rewrite(name="add_parameter", propose=propose, weight=2.5)
