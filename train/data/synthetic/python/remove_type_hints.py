"""Remove the type hints of a function."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python.add_type_hints import hint_removals
from train.data.synthetic.python_source import PythonSource

_WORDINGS = (
    "Remove the type hints from {name}",
    "Remove the annotations of {name}",
    "strip the type annotations",
    "Drop the types in the signature of {name}",
    "{name} should have no type hints",
    "Delete all type annotations from the signature of {name}",
    "No type hints in {name}, please",
    "Make {name} untyped",
    "Take the type hints out of {name}, but keep the default values",
)


def propose(source: PythonSource, generator: Random) -> Iterator[Proposal]:
    """Removals from random functions with at least two hints."""
    functions = source.functions
    generator.shuffle(functions)
    for function in functions:
        removals = hint_removals(source, function)
        if len(removals) >= 2:
            yield Proposal(patches=tuple(removals), wordings=_WORDINGS, slots={"name": function.name})


REWRITE = Rewrite(name="remove_type_hints", propose=propose, weight=0.15)
