"""Fix a bug: the code the user starts with is the author's with one mistake put in.

Each seeder names the mistake in three depths: what is seen (a symptom), what is wrong, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from train.data.synthetic.patches import Patch
from train.data.synthetic.proposal import Proposal, Rewrite
from train.data.synthetic.python import flow_mistakes, operator_mistakes
from train.data.synthetic.python.mistakes import Seeder
from train.data.synthetic.python_source import PythonSource
from train.data.synthetic.scopes import is_test

GENERAL_WORDINGS = (
    "Fix the bug in {function}",
    "fix the bug",
    "There is a bug in {function}, find and fix it",
    "{function} does not work correctly. Fix it.",
    "Fix {function}",
    "Correct the mistake in {function}",
    "{function} gives wrong results; repair it",
    "Something is wrong in {function}. Can you fix it?",
)
HINTED_WORDINGS = (
    "Fix the bug in {function}: {wrong_text}",
    "{wrong_text}. Fix it",
    "{wrong_text}",
    "There is a bug in {function}: {wrong_text}. Please correct it.",
    "Fix {function}, {wrong_text}",
    "In {function}, {wrong_text}; correct this without changing anything else",
)
EXACT_WORDINGS = (
    "{remedy_text}",
    "{remedy_text} in {function}",
    "Fix {function}: {remedy_text}",
    "Bug: {wrong_text}. {remedy_text}",
)


@dataclass(frozen=True)
class BugRewrite:
    """Makes the proposals of one seeder. ``is_findable``: the code shows the mistake to who looks for one."""

    seed: Seeder
    is_findable: bool

    def __call__(self, source: PythonSource, generator: Random) -> Iterator[Proposal]:
        """One mistake in each of the file's functions, in random order."""
        functions = source.functions
        generator.shuffle(functions)
        for function in functions:
            if is_test(function) or function.body[-1].lineno == function.lineno:
                continue
            mistake = next(self.seed(source, function, generator), None)
            if mistake is None:
                continue
            wordings = generator.choices(
                (GENERAL_WORDINGS, HINTED_WORDINGS, EXACT_WORDINGS), (0.25 if self.is_findable else 0.0, 0.4, 0.35)
            )[0]
            yield Proposal(
                patches=(Patch(mistake.start, mistake.end, mistake.text),),
                wordings=wordings,
                slots={"function": function.name, "wrong_text": mistake.wrong, "remedy_text": mistake.remedy},
                is_restored=True,
            )


# Name, seeder, weight, and whether the mistake shows to who looks for one.
_SEEDERS: tuple[tuple[str, Seeder, float, bool], ...] = (
    ("wrong_comparison", operator_mistakes.wrong_comparison, 0.7, False),
    ("off_by_one", operator_mistakes.off_by_one, 0.7, True),
    ("swapped_operands", operator_mistakes.swapped_operands, 0.7, True),
    ("wrong_operator", operator_mistakes.wrong_operator, 0.7, False),
    ("missing_return", flow_mistakes.missing_return, 0.7, True),
    ("wrong_variable", flow_mistakes.wrong_variable, 0.7, True),
    ("inverted_condition", flow_mistakes.inverted_condition, 0.7, True),
    ("wrong_connective", operator_mistakes.wrong_connective, 0.7, True),
    ("mutable_default", flow_mistakes.mutable_default, 8.0, True),
    ("missing_await", flow_mistakes.missing_await, 3.0, True),
    ("lost_accumulation", flow_mistakes.lost_accumulation, 1.0, True),
    ("wrong_boolean", flow_mistakes.wrong_boolean, 0.7, False),
)
REWRITES = tuple(
    Rewrite(name=f"fix_{name}", propose=BugRewrite(seed, is_findable), weight=weight)
    for name, seed, weight, is_findable in _SEEDERS
)
