from __future__ import annotations

from random import Random

import pytest

from train.data.instructions import first_sentence, join_instructions, lower_first, quote_code, word_instruction


def test_slots_are_filled_and_manners_vary() -> None:
    made = {
        word_instruction(("Rename {old} to {new}",), {"old": "a_b", "new": "c"}, Random(seed)) for seed in range(200)
    }
    assert {"Rename `a_b` to `c`", "rename a_b to c.", "Rename 'a_b' to 'c'"} <= made
    assert any(text.startswith(("Please ", "please ", "Can you ", "Could you ")) for text in made)
    assert not any("{" in text for text in made)


def test_prose_slots_stand_as_they_are() -> None:
    text = word_instruction(("Say {words_text}",), {"words_text": "the {braces} stay"}, Random(1))
    assert "the {braces} stay" in text


def test_a_name_at_the_start_keeps_its_case() -> None:
    for seed in range(60):
        assert "HTTPClient" in word_instruction(("{name} is slow",), {"name": "HTTPClient"}, Random(seed))


@pytest.mark.parametrize(
    ("code", "quote", "shown"),
    [
        ("name", "", "name"),
        ("a.b()", "", "a.b()"),
        ("x < 3", "", "`x < 3`"),
        ("'a'", "'", "`'a'`"),
        ("None", "'", "None"),
        ("3.5", "'", "3.5"),
        ("name", "'", "'name'"),
        ("a`b", "`", "a`b"),
    ],
)
def test_quotes_around_code(code: str, quote: str, shown: str) -> None:
    assert quote_code(code, quote) == shown


def test_two_instructions_in_one() -> None:
    made = {join_instructions("Add a docstring.", "Rename a to b", Random(seed)) for seed in range(60)}
    assert "Add a docstring, and rename a to b" in made
    assert "1. Add a docstring\n2. Rename a to b" in made


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Return it. Then stop.", "Return it"),
        ("Return it, e.g. a name. More.", "Return it, e.g. a name"),
        ("Return\n    the name.\n\n    Args: x", "Return the name"),
        ("Version 3.5 of f.x is here", "Version 3.5 of f.x is here"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def test_lower_first_leaves_names_and_acronyms() -> None:
    assert lower_first("Add it") == "add it"
    assert lower_first("HTTP is slow") == "HTTP is slow"
