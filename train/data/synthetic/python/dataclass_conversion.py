"""Turn a class whose ``__init__`` only stores its arguments into a dataclass."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.add_import import import_patch
from train.data.synthetic.python.infer_type_hints import literal_type
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import docstring_of

WORDINGS = (
    "Make {name} a dataclass",
    "Convert {name} to a dataclass",
    "use @dataclass",
    "{name} should be a dataclass",
    "Use a dataclass instead of the hand-written __init__ in {name}",
    "Replace the __init__ of {name} with @dataclass fields",
    "Turn the class {name} into a dataclass with the fields {fields_text}",
    "{name} only holds data, so make it a dataclass",
    "Refactor {name}: decorate it with @dataclass and declare {fields_text} as fields",
    "Simplify {name} with the dataclasses module",
    "Get rid of the boilerplate in {name} by using dataclasses",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Classes without bases whose ``__init__`` assigns every parameter to the attribute of its name."""
    classes = source.classes
    generator.shuffle(classes)
    for node in classes:
        if node.bases or node.keywords or node.decorator_list:
            continue
        makers = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if (
            len(makers) != 1
            or makers[0].decorator_list
            or source.has_comment(source.lines(makers[0]))
            or docstring_of(makers[0])
        ):
            continue
        fields = _fields(source, makers[0])
        if not fields:
            continue
        indent = source.indent(makers[0])
        start, span = source.lines(node).start, source.lines(makers[0])
        head = source.text[start : source.start(node)]
        addition = import_patch(source, "dataclasses", "dataclass")
        yield Proposal(
            patches=(
                *([addition] if addition else []),
                Patch(start, start, f"{head}@dataclass\n"),
                Patch(span.start, span.end, "".join(f"{indent}{field}\n" for field in fields)),
            ),
            wordings=WORDINGS,
            slots={"name": node.name, "fields_text": ", ".join(field.split(":")[0] for field in fields)},
            needs_file=addition is not None,
        )


def _fields(source: PythonSource, maker: Function) -> list[str]:
    """The field declarations; empty where ``__init__`` does anything else or a type is not known."""
    arguments = maker.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        return []
    names = [argument.arg for argument in arguments.args[1:]]
    stored: list[str] = []
    for statement in maker.body:
        match statement:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=attr)], value=ast.Name(id=value)):
                if attr != value:
                    return []
                stored.append(attr)
            case _:
                return []
    if sorted(stored) != sorted(names) or not names:
        return []
    missing = len(names) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [*[None] * missing, *arguments.defaults]
    fields: list[str] = []
    for argument, default in zip(arguments.args[1:], defaults, strict=True):
        hint = (
            source.segment(argument.annotation) if argument.annotation else literal_type(default) if default else None
        )
        if hint is None or isinstance(default, ast.List | ast.Dict | ast.Set | ast.Call):
            return []
        fields.append(f"{argument.arg}: {hint}" + (f" = {source.segment(default)}" if default else ""))
    return fields


REWRITE = Rewrite(name="dataclass_conversion", propose=propose, weight=10.0)
