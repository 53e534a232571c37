"""Turn f-strings into ``str.format``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

_FIELD = re.compile(r"\{\{|\}\}|\{([\w.]+)((?:![rsa])?(?::[^{}]*)?)\}")

_WORDINGS = (
    "Use str.format instead of the f-string",
    "Replace the f-string by a call of format",
    "No f-strings here, use .format()",
    "Convert the f-string in {function} to str.format",
    "Write the f-string with .format",
    "f-string -> .format()",
    "Change the f-string in {function} to a format string with str.format",
    "Our style guide forbids f-strings in this place; use .format",
    "Make the message in {function} a template that is filled with format",
    "We want to translate this text: use .format() so that the template is a constant",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """F-strings on one line whose fields are names and attributes."""
    nodes = source.nodes(ast.JoinedStr)
    generator.shuffle(nodes)
    for node in nodes:
        function = source.function_of(node)
        literal = re.fullmatch(r"f('|\")((?:(?!\1)[^\\\n])*)\1", source.segment(node))
        if function is None or literal is None:
            continue
        text = literal[2]
        fields = [match for match in _FIELD.finditer(text) if match[1]]
        rest = _FIELD.sub("", text)
        if not fields or "{" in rest or "}" in rest:
            continue
        body = _FIELD.sub(lambda match: match[0] if match[1] is None else "{" + (match[2] or "") + "}", text)
        values = ", ".join(match[1] for match in fields)
        yield Proposal(
            patches=(source.replace(node, f"{literal[1]}{body}{literal[1]}.format({values})"),),
            wordings=_WORDINGS,
            slots={"function": function.name},
        )


REWRITE = Rewrite(name="from_fstring", propose=propose, weight=0.3)
