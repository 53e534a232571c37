"""The grammar: one right answer up to the names of locals, a clean split, and a tokenizer that serves any text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.grammar import (
    LOCALS,
    Context,
    all_contexts,
    canonical,
    grammar_tokenizer,
    is_exact,
    make_example,
    parses,
    render_test,
)

TRAINED = all_contexts(is_held_out=False)
EXAMPLE = Context("g", ("c", "k"), "+*")


def test_a_known_program() -> None:
    assert EXAMPLE.prefix == "def g(c,k):" and EXAMPLE.suffix == "#+*\n"
    assert EXAMPLE.middle("pq") == "p=c+k;q=p*c;g(q,p)"
    assert Context("f", ("a", "b"), "/-+").middle("srp") == "s=a/b;r=s-a;p=r+b;f(p,s)"


@given(seed=st.integers(0, 10**6))
def test_every_example_parses_and_is_exact_up_to_names(seed: int) -> None:
    choice = random.Random(seed)
    context = choice.choice(TRAINED)
    example, again = make_example(context, choice), make_example(context, choice)
    assert parses(example.middle)
    assert is_exact(again.middle, example.middle)
    assert len({c for c in example.middle if c in LOCALS}) == len(context.operators)


@pytest.mark.parametrize(
    ("answer", "is_program"),
    [
        ("p=c+k;q=s*c;g(q,p)", False),  # a name that was never assigned
        ("p=c+k;q=p*k;g(q,p)", True),  # another argument: a program, not the right one
        ("p=c+k;p=p*c;g(p,p)", False),  # one name for two locals
        ("p=c-k;q=p*c;g(q,p)", True),
        ("p=c+k;q=p*c;g(p,q)", True),
        ("p=c+k;q=p*c;g(q,p", False),
        ("", False),
    ],
)
def test_wrong_answers(answer: str, is_program: bool) -> None:
    assert not is_exact(answer, EXAMPLE.middle("pq"))
    assert parses(answer) is is_program


def test_renaming_is_consistent() -> None:
    assert canonical("s=c+k;r=s*c;g(r,s)") == canonical("p=c+k;q=p*c;g(q,p)") == "0=c+k;1=0*c;g(1,0)"


def test_no_context_is_on_both_sides() -> None:
    train, held_out = all_contexts(is_held_out=False), all_contexts(is_held_out=True)
    assert not set(train) & set(held_out) and len(held_out) > 1000
    assert {c.function for c in held_out} == {c.function for c in train}
    assert train == TRAINED


@given(text=st.text(max_size=30))
def test_the_tokenizer_keeps_any_text(text: str) -> None:
    tokenizer = grammar_tokenizer()
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_rendered_test_tells_right_from_wrong() -> None:
    reference = EXAMPLE.middle("pq")

    def passes(answer: str) -> bool:
        program = render_test(EXAMPLE.prefix, reference, answer)
        assert program is not None
        try:
            exec(program, {})  # the programs are ours
        except Exception:
            return False
        return True

    assert passes("r=c+k;s=r*c;g(s,r)")
    assert not passes("r=c+k;s=r*k;g(s,r)") and not passes("r=c+k;s=r*c;g(r,s)") and not passes("1/0")
    assert render_test("def main():", reference, reference) is None
