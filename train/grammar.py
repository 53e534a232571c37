"""A synthetic grammar: tiny programs whose middle has one right answer, to measure training in minutes on a CPU.

::

    prefix   def g(c,k):
    middle   p=c+k;q=p*c;g(q,p)
    suffix   #+*

The comment behind the cursor lists the operators; each makes one statement. A statement takes the result of the one
before (the first takes the first argument) and the arguments in turn. The last part calls the function with the last
and the first local. Everything is determined by prefix and suffix but for the names of the locals, which the context
leaves free: an answer is exact when it equals the reference after its locals are renamed in order of appearance. The
free names are what makes fast decoding hard: two slots filled in the same step must agree on a name.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from diffusion_core.prompts import QWEN_STOP_TOKENS
from train.data.examples import ExampleKind, InfillExample, Origin

FUNCTIONS = "fghmn"
ARGUMENTS = "abcdek"
LOCALS = "pqrs"
OPERATORS = "+-*/"
MIN_STATEMENTS, MAX_STATEMENTS = 2, 3
HELD_OUT_SHARE = 8  # one context of so many is never trained on

PROMPT_FORMAT = "qwen2.5-coder/1"
ORIGIN = Origin(source="grammar==1", path="grammar.py", licence="CC0-1.0", language="python")

_STATEMENT = re.compile(rf"([{LOCALS}])=([{LOCALS}{ARGUMENTS}])([{re.escape(OPERATORS)}])([{ARGUMENTS}])")
_CALL = re.compile(rf"[{FUNCTIONS}]\(([{LOCALS}]),([{LOCALS}])\)")


@dataclass(frozen=True, slots=True)
class Context:
    """What prefix and suffix say: the function, its two arguments, and the operators in order."""

    function: str
    arguments: tuple[str, str]
    operators: str

    @property
    def prefix(self) -> str:
        """Text before the middle."""
        return f"def {self.function}({self.arguments[0]},{self.arguments[1]}):"

    @property
    def suffix(self) -> str:
        """Text after the middle."""
        return f"#{self.operators}\n"

    def middle(self, names: str) -> str:
        """The right middle with these names for the locals, one a statement, all different."""
        statements = []
        left = self.arguments[0]
        for i, operator in enumerate(self.operators):
            statements.append(f"{names[i]}={left}{operator}{self.arguments[(i + 1) % 2]};")
            left = names[i]
        return f"{''.join(statements)}{self.function}({left},{names[0]})"


def all_contexts(*, is_held_out: bool) -> list[Context]:
    """Every context of one side of the split, in a fixed order."""
    contexts = [
        Context(function, arguments, "".join(operators))
        for length in range(MIN_STATEMENTS, MAX_STATEMENTS + 1)
        for function in FUNCTIONS
        for arguments in itertools.permutations(ARGUMENTS, 2)
        for operators in itertools.product(OPERATORS, repeat=length)
    ]
    # A fixed shuffle, so that both sides hold every function, argument and operator.
    random.Random(0).shuffle(contexts)  # noqa: S311 - a split, not a secret
    share = len(contexts) // HELD_OUT_SHARE
    return contexts[:share] if is_held_out else contexts[share:]


def make_example(context: Context, choice: random.Random) -> InfillExample:
    """The context with its right middle; ``choice`` draws the names of the locals."""
    names = "".join(choice.sample(LOCALS, len(context.operators)))
    return InfillExample(
        kind=ExampleKind.INFILL_SPAN,
        prefix=context.prefix,
        middle=context.middle(names),
        suffix=context.suffix,
        path=ORIGIN.path,
        origin=ORIGIN,
    )


def canonical(middle: str) -> str:
    """``middle`` with its locals renamed to 0, 1, 2 in order of appearance; other text stays."""
    names: dict[str, str] = {}
    return "".join(names.setdefault(c, str(len(names))) if c in LOCALS else c for c in middle)


def is_exact(answer: str, reference: str) -> bool:
    """Whether ``answer`` is ``reference`` up to the names of the locals, which the context leaves free."""
    return canonical(answer) == canonical(reference)


def parses(middle: str) -> bool:
    """Whether ``middle`` is a program of the grammar: statements, then a call, every local assigned once before use."""
    *statements, call = middle.split(";")
    assigned: set[str] = set()
    for statement in statements:
        found = _STATEMENT.fullmatch(statement)
        if found is None:
            return False
        target, left = found[1], found[2]
        if target in assigned or (left in LOCALS and left not in assigned):
            return False
        assigned.add(target)
    final = _CALL.fullmatch(call)
    return final is not None and set(final.groups()) <= assigned


def grammar_tokenizer() -> Tokenizer:
    """One token per byte and the special tokens of the prompt format: an engine can serve any text with it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in QWEN_STOP_TOKENS])
    return tokenizer


def render_test(prefix: str, reference: str, answer: str) -> str | None:
    """A Python program that runs ``answer`` and checks the call it makes; None if ``prefix`` is not of the grammar.

    The arguments get primes, the function records what it is called with, and the reference says what that must be.
    """
    found = re.fullmatch(rf"def ([{FUNCTIONS}])\(([{ARGUMENTS}]),([{ARGUMENTS}])\):", prefix)
    if found is None:
        return None
    function, first, second = found.groups()
    setup = f"calls = []\ndef {function}(*values): calls.append(values)\n{first}, {second} = 7, 13\n"
    return f"{setup}{reference}\nexec({answer!r})\nassert len(calls) == 2 and calls[0] == calls[1]\n"
