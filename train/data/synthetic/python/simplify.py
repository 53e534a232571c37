"""Small simplifications: the code the user starts with says the same as the author's in a longer way."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python_source import PythonSource

MAX_CODE = 70

# Where the author's form stands, the patch that makes it longer, and the author's form itself.
Longer = Callable[[PythonSource, Random], Iterator[tuple[ast.AST, Patch, str]]]


@dataclass(frozen=True)
class Simplification:
    """Makes the proposals of one longer form; ``{code}`` is the author's form in the wordings."""

    longer: Longer
    wordings: tuple[str, ...]

    def __call__(self, source: PythonSource, generator: Random) -> Iterator[Proposal]:
        """The places of the file in random order."""
        found = list(self.longer(source, generator))
        generator.shuffle(found)
        for node, patch, code in found:
            function = source.function_of(node)
            if function is not None and len(code) < MAX_CODE and "\n" not in code:
                yield Proposal(
                    patches=(patch,),
                    wordings=self.wordings,
                    slots={"function": function.name, "code": code},
                    is_restored=True,
                )


def simplification(name: str, longer: Longer, weight: float, wordings: tuple[str, ...]) -> Rewrite[PythonSource]:
    """The rewrite that undoes one longer form."""
    return Rewrite(name=name, propose=Simplification(longer, wordings), weight=weight)
