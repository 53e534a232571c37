"""Edits of real files: the standard library is code that nobody wrote for these rewrites."""

from __future__ import annotations

import ast
import asyncio.locks
import asyncio.queues
import configparser
import json.encoder
import re
import textwrap
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from train.data.examples import EditExample, ExampleKind, Origin, from_json, to_json
from train.data.synthetic import make_edits
from train.data.synthetic.assemble import MAX_SELECTION_CHARACTERS, order_by_weight
from train.data.synthetic.catalogue import PYTHON_REWRITES

MODULES = (asyncio.locks, asyncio.queues, configparser, json.encoder, textwrap)


def origin(path: str) -> Origin:
    return Origin(source="python==3", path=path, licence="PSF-2.0", language="python")


def edits_of(text: str, seed: int = 0, limit: int = 100) -> list[EditExample]:
    return make_edits(text, "python", origin("a.py"), Random(seed), limit)


@pytest.fixture(scope="module")
def real_edits() -> list[tuple[str, EditExample]]:
    found = []
    for module in MODULES:
        text = Path(module.__file__).read_text()
        for seed in range(2):
            found += [(text, example) for example in edits_of(text, seed)]
    return found


def test_both_sides_are_programs_that_differ_inside_the_selection(real_edits) -> None:
    assert len(real_edits) > 200
    for _, example in real_edits:
        assert example.kind is ExampleKind.EDIT_SYNTHETIC
        ast.parse(example.before)
        ast.parse(example.after)
        assert example.selection != example.edited
        assert max(len(example.selection), len(example.edited)) <= MAX_SELECTION_CHARACTERS


def test_a_selection_is_whole_lines(real_edits) -> None:
    for _, example in real_edits:
        assert example.start == 0 or example.before[example.start - 1] == "\n"
        assert example.selection.endswith("\n")
        assert example.edited.endswith("\n")


def test_selections_are_of_all_sizes(real_edits) -> None:
    whole = [example for _, example in real_edits if example.selection == example.before]
    parts = [example for _, example in real_edits if len(example.selection) < len(example.before) / 10]
    assert len(whole) > len(real_edits) / 10
    assert len(parts) > len(real_edits) / 10


def test_restored_edits_end_in_the_file_as_it_is(real_edits) -> None:
    bugs = [(text, example) for text, example in real_edits if re.fullmatch(r"fix_\w+", example.rewrite)]
    ends = [example.after == text or example.after != example.before for text, example in bugs]
    of_whole_files = [example.after == text for text, example in bugs if len(example.before) > 3000]
    assert all(ends)
    assert of_whole_files
    assert all(of_whole_files)


def test_instructions_are_filled_and_one_kind_differs_from_another(real_edits) -> None:
    instructions = [example.instruction for _, example in real_edits]
    assert all(3 <= len(text) <= 600 for text in instructions)
    assert not any(re.search(r"\{(old|new|name|function|value|code|owner)\}", text) for text in instructions)
    assert max(Counter(instructions).values()) < len(instructions) / 20


def test_many_kinds_come_out_of_a_few_files(real_edits) -> None:
    kinds = {name for _, example in real_edits for name in example.rewrite.split("+")}
    assert len(kinds) >= 40


def test_some_edits_ask_for_two_things(real_edits) -> None:
    pairs = [example for _, example in real_edits if "+" in example.rewrite]
    assert pairs
    assert all(len(set(example.rewrite.split("+"))) == 2 for example in pairs)


def test_the_same_generator_gives_the_same_edits_whatever_ran_before() -> None:
    text = Path(textwrap.__file__).read_text()
    first = edits_of(text, seed=3)
    edits_of(Path(json.encoder.__file__).read_text())
    assert edits_of(text, seed=3) == first
    assert edits_of(text, seed=4) != first


def test_edits_can_be_stored(real_edits) -> None:
    example = real_edits[0][1]
    assert from_json(to_json(example)) == example


def test_a_limit_holds() -> None:
    text = Path(textwrap.__file__).read_text()
    assert [len(edits_of(text, limit=limit)) for limit in (0, 1, 4)] == [0, 1, 4]


def test_rare_kinds_come_first_more_often() -> None:
    by_weight = {rewrite.weight: rewrite for rewrite in PYTHON_REWRITES}
    rare, common = by_weight[max(by_weight)], by_weight[min(by_weight)]
    firsts = Counter(order_by_weight([common, rare], Random(seed))[0].name for seed in range(300))
    assert firsts[rare.name] > 4 * firsts[common.name] > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "def f(:\n",
        "print 'python 2'\n",
        "x = 1\r\ny = 2\r\n",
        "# @generated\ndef f(a):\n    return a\n",
        "return 1\n",
        "\0",
        "x = " + "(" * 300 + ")" * 300,
    ],
    ids=["empty", "blank", "syntax", "python2", "crlf", "generated", "return", "nul", "deep"],
)
def test_what_is_no_program_gives_no_edits(text: str) -> None:
    assert edits_of(text) == []


def test_a_language_without_rewrites_gives_no_edits() -> None:
    assert make_edits("SELECT 1;\n", "sql", origin("a.sql"), Random(0), 5) == []


def test_text_outside_ascii_does_not_shift_positions() -> None:
    text = (
        'def gruß(größe, naïve=3):\n    "Übergröße — für alle 🎉"\n'
        "    if größe is None:\n        return 0\n    return größe * naïve\n"
    )
    found = [example for seed in range(30) for example in edits_of(text, seed)]
    assert found
    for example in found:
        ast.parse(example.after)
    assert {"is_none", "default_value"} <= {example.rewrite for example in found}
    assert all(example.after == text for example in found if example.rewrite == "default_value")
