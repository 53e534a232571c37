"""Turn a hand-written class into the dataclass that the author wrote."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.dataclass_conversion import WORDINGS
from train.data.synthetic.python_source import PythonSource

_OPTION_WORDINGS = (
    "Make {name} a dataclass with {decorator}",
    "Convert {name} to a dataclass: {decorator}",
    "use {decorator}",
    "{name} should be a dataclass ({decorator})",
    "Replace the __init__ of {name} with {decorator} and fields",
    "Turn {name} into a {decorator} with the fields {fields_text}",
    "Use {decorator} instead of the hand-written __init__ in {name}",
    "{name} only holds data; decorate it with {decorator}",
    "Get rid of the boilerplate in {name} with {decorator}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Plain dataclasses without bases, whose fields stand together and have simple defaults."""
    classes = source.classes
    generator.shuffle(classes)
    for node in classes:
        if node.bases or node.keywords or len(node.decorator_list) != 1:
            continue
        decorator = source.segment(node.decorator_list[0])
        is_plain = decorator in ("dataclass", "dataclasses.dataclass")
        if not is_plain and not re.fullmatch(r"(dataclasses\.)?dataclass\([\w=, ]+\)", decorator):
            continue
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        has_makers = any(
            isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__post_init__") for part in node.body
        )
        if not fields or has_makers or len(fields) > 10 or any(_is_special(field) for field in fields):
            continue
        first = node.body.index(fields[0])
        if node.body[first : first + len(fields)] != fields:
            continue
        span = source.block_lines([*fields])
        typed = generator.random() < 0.7
        body = _maker(source, fields, source.indent(fields[0]), typed=typed)
        line = source.line_of(source.start(node.decorator_list[0]))
        yield Proposal(
            patches=(Patch(line.start, line.end, ""), Patch(span.start, span.end, body)),
            wordings=WORDINGS if is_plain else _OPTION_WORDINGS,
            slots={
                "decorator": f"@{decorator}",
                "name": node.name,
                "fields_text": ", ".join(ast.unparse(field.target) for field in fields),
            },
            is_restored=True,
        )


def _is_special(field: ast.AnnAssign) -> bool:
    is_shared = any(name in ast.unparse(field.annotation) for name in ("ClassVar", "InitVar", "KW_ONLY"))
    simple = field.value is None or isinstance(field.value, ast.Constant | ast.Name | ast.Attribute)
    return is_shared or not simple or not isinstance(field.target, ast.Name)


def _maker(source: PythonSource, fields: list[ast.AnnAssign], indent: str, *, typed: bool) -> str:
    """The ``__init__`` that a person would have written for the fields."""
    arguments: list[str] = []
    for field in fields:
        name = source.segment(field.target)
        hint = f": {source.segment(field.annotation)}" if typed else ""
        equals = " = " if typed else "="
        arguments.append(name + hint + (equals + source.segment(field.value) if field.value else ""))
    returned = " -> None" if typed else ""
    line = f"{indent}def __init__(self, {', '.join(arguments)}){returned}:\n"
    if len(line) > 100:
        inner = "".join(f"{indent}    {argument},\n" for argument in ["self", *arguments])
        line = f"{indent}def __init__(\n{''.join(inner)}{indent}){returned}:\n"
    names = [source.segment(field.target) for field in fields]
    return line + "".join(f"{indent}    self.{name} = {name}\n" for name in names)


REWRITE = Rewrite(name="dataclass_restored", propose=propose, weight=8.0)
