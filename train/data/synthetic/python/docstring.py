"""Add the docstring that the author wrote: it is taken away from the code the user starts with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from random import Random

from train.data.instructions import first_sentence
from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import Function, PythonSource
from train.data.synthetic.scopes import docstring_of, parameters

MIN_CHARACTERS, MAX_LINES = 20, 14

_WORDINGS = (
    "Add a docstring to {name}",
    "Document {name}",
    "add docstring",
    "Write a docstring for {name}",
    "{name} has no docstring, add one",
    "Add documentation to {name}",
    "docstring for {name} please",
    "Explain in a docstring what {name} does",
    "Add a docstring to {name}: {summary_text}",
    'Add a docstring to {name} that begins with "{summary_text}"',
    "Document {name}. It should say: {summary_text}.",
    "Describe {name} in its docstring ({summary_text})",
    "What does {name} do? Add a docstring.",
)
_DETAILED = (
    "Add a docstring to {name} that describes {parameters_text}",
    "Document {name} with its parameters {parameters_text}",
    "Write a full docstring for {name}: a summary ({summary_text}) and a description of {parameters_text}",
    "Add a docstring with a section for the arguments to {name}",
    "{name} needs a docstring that explains {parameters_text}",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Docstrings of functions and classes, in random order."""
    owners: list[Function | ast.ClassDef] = [*source.functions, *source.classes]
    generator.shuffle(owners)
    for owner in owners:
        docstring = docstring_of(owner)
        if docstring is None or not source.has_own_lines(docstring):
            continue
        text = ast.get_docstring(owner) or ""
        span = source.lines(docstring)
        if len(text) < MIN_CHARACTERS or text.count("\n") >= MAX_LINES or not text.isascii():
            continue
        is_only = len(owner.body) == 1
        if is_only and isinstance(owner, ast.ClassDef):
            continue
        end = span.end
        if source.text[end : end + 1] == "\n" and not is_only:
            end += 1  # the blank line after the docstring goes with it
        rest = f"{source.indent(docstring)}pass\n" if is_only else ""
        described = _described_parameters(owner, text)
        yield Proposal(
            patches=(Patch(span.start, end, rest),),
            wordings=_DETAILED + _WORDINGS[:5] if described else _WORDINGS,
            slots={"name": owner.name, "summary_text": first_sentence(text), "parameters_text": _enumerate(described)},
            is_restored=True,
        )


def _described_parameters(owner: Function | ast.ClassDef, text: str) -> list[str]:
    """The parameters that the docstring describes one by one."""
    if isinstance(owner, ast.ClassDef):
        return []
    names = [argument.arg for argument in parameters(owner)]
    return [name for name in names if re.search(rf"(?m)(:param [^:]*\b{name}:|^\s*\**{name}\s*(\([^)]*\))?\s*:)", text)]


def _enumerate(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


REWRITE = Rewrite(name="docstring", propose=propose, weight=0.7)
