"""Turn ``%`` formatting and ``str.format`` into f-strings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_PERCENT = re.compile(r"%(?:%|([-+0 #]*\d*(?:\.\d+)?)([sdrfgxXeic]))")

_WORDINGS = (
    "Use an f-string",
    "Use f-strings in {function}",
    "Convert {old_text} to f-strings",
    "f-string instead of {old_text}",
    "Replace {old_text} with f-strings in {function}",
    "Modernise the string formatting in {function}",
    "Change the string formatting to f-strings",
    "{function} still uses {old_text}, switch to f-strings",
    "Rewrite the formatted strings of {function} as f-strings. Leave everything else as it is.",
    "Format with f-strings instead of {old_text}",
    "Can you use an f-string here?",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """All formatted strings of a random function that can be converted."""
    nodes: list[ast.expr] = [*source.nodes(ast.BinOp), *source.nodes(ast.Call)]
    found: dict[ast.AST, list[Patch]] = {}
    for node in nodes:
        function = source.function_of(node)
        text = convert(source, node) if function is not None else None
        if text is not None and function is not None:
            found.setdefault(function, []).append(source.replace(node, text))
    functions = [function for function in source.functions if function in found]
    generator.shuffle(functions)
    for function in functions:
        patches = found[function]
        is_percent = [
            source.text[patch.start : patch.end].rstrip().endswith(")")
            and ".format(" in source.text[patch.start : patch.end]
            for patch in patches
        ]
        old = "str.format" if all(is_percent) else "% formatting" if not any(is_percent) else "old-style formatting"
        yield Proposal(patches=tuple(patches), wordings=_WORDINGS, slots={"function": function.name, "old_text": old})


def convert(source: PythonSource, node: ast.expr) -> str | None:
    """The f-string that equals a formatting expression; None where it is none or cannot be converted for sure."""
    match node:
        case ast.BinOp(left=ast.Constant(value=str()) as template, op=ast.Mod(), right=right):
            values = list(right.elts) if isinstance(right, ast.Tuple) else [right]
            if not isinstance(right, ast.Tuple | ast.Attribute | ast.Call | ast.Name):
                return None
            return _fill(source, template, lambda text: _percent_fields(source, text, values))
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str()) as template, attr="format"), args=args, keywords=names
        ):
            if any(isinstance(value, ast.Starred) for value in args) or any(name.arg is None for name in names):
                return None
            return _fill(source, template, lambda text: _brace_fields(source, text, args, names))
        case _:
            return None


def _fill(source: PythonSource, template: ast.Constant, fields: object) -> str | None:
    """The literal with its fields filled; one literal, one line, no prefix, no escapes."""
    literal = source.segment(template)
    match = re.fullmatch(r"('|\")((?:(?!\1)[^\\\n])*)\1", literal)
    if match is None or not callable(fields):
        return None
    quote, text = match[1], match[2]
    filled = fields(text)
    if filled is None:
        return None
    body, expressions = filled
    if any(
        quote in part or "\\" in part or "\n" in part or "#" in part or part.startswith("{") for part in expressions
    ):
        return None
    return None if not expressions else f"f{quote}{body}{quote}"


def _percent_fields(source: PythonSource, text: str, values: list[ast.expr]) -> tuple[str, list[str]] | None:
    texts = [_expression(source, value) for value in values]
    remaining = iter(texts)
    num_fields = 0
    rest = _PERCENT.sub("", text)
    if "%" in rest:
        return None

    def fill(match: re.Match[str]) -> str:
        nonlocal num_fields
        if match[0] == "%%":
            return "%"
        num_fields += 1
        return "{" + next(remaining, "") + _format_spec(match[1], match[2]) + "}"

    body = _PERCENT.sub(fill, text.replace("{", "{{").replace("}", "}}"))
    return (body, texts) if num_fields == len(texts) else None


def _format_spec(flags: str, kind: str) -> str:
    """What follows the expression in the braces for ``%<flags><kind>``."""
    if kind == "r":
        return "!r"
    if kind in "sdi" and not flags:
        return ""
    if flags.startswith("-"):
        flags = "<" + flags[1:]
    elif kind == "s":
        flags = ">" + flags
    return f":{flags}{'' if kind == 's' else 'd' if kind == 'i' else kind}"


def _brace_fields(
    source: PythonSource, text: str, args: list[ast.expr], names: list[ast.keyword]
) -> tuple[str, list[str]] | None:
    by_name = {name.arg: _expression(source, name.value) for name in names if name.arg}
    texts = [_expression(source, value) for value in args]
    used: list[str] = []
    place = 0

    def fill(match: re.Match[str]) -> str:
        nonlocal place
        if match[0] in ("{{", "}}"):
            return match[0]
        field, rest = match[1], match[2] or ""
        if field == "":
            field, place = str(place), place + 1
        value = by_name.get(field) or (texts[int(field)] if field.isdigit() and int(field) < len(texts) else "")
        used.append(value)
        return "{" + value + rest + "}"

    body = re.sub(r"\{\{|\}\}|\{(\w*)((?:![rsa])?(?::[^{}]*)?)\}", fill, text)
    rest = re.sub(r"\{\{|\}\}|\{(\w*)((?:![rsa])?(?::[^{}]*)?)\}", "", text)
    complete = "{" not in rest and "}" not in rest and all(used) and set(used) == {*texts, *by_name.values()}
    return (body, used) if complete else None


def _expression(source: PythonSource, node: ast.expr) -> str:
    """The text of a value inside braces; empty where it has no place there."""
    text = source.segment(node)
    simple = ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.BinOp | ast.Constant
    return text if isinstance(node, simple) and len(text) <= 60 else "\n"


REWRITE = Rewrite(name="to_fstring", propose=propose, weight=6.0)
