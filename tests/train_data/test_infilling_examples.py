"""Holes cut into files."""

from __future__ import annotations

import ast
import random
from collections import Counter

import pytest
from helpers.source_trees import make_module
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import ConfigError
from train.data.examples import ExampleKind, InfillExample, Origin
from train.data.infilling import InfillConfig, keep_end, keep_start, make_infills
from train.data.source_files import SourceFile
from train.data.syntax_nodes import NodeKind, find_nodes

ORIGIN = Origin(source="thing==1", path="a.py", licence="MIT", language="python")
HOLES = tuple(InfillConfig().rates)


def cut(text: str, seed: int = 0, language: str = "python", **changes: object) -> list[InfillExample]:
    config = InfillConfig(**{"characters_per_hole": 200, **changes})  # type: ignore[arg-type]
    return list(make_infills(SourceFile("a.py", text, language), ORIGIN, config, random.Random(seed)))


@given(st.text(alphabet="ab \n\té𝒳(:)", max_size=400), st.integers(0, 5))
def test_every_example_is_a_piece_of_its_file(text: str, seed: int) -> None:
    for example in cut(text, seed, max_prefix=40, max_suffix=30):
        assert example.prefix + example.middle + example.suffix in text
        if example.kind is ExampleKind.DOCUMENT:
            assert (example.prefix, example.middle, example.suffix) == ("", text, "")
        else:
            assert example.middle.strip()


def test_all_kinds_are_cut_and_none_twice() -> None:
    examples = cut(make_module("alpha", 20), max_per_file=6, rates=dict.fromkeys(HOLES, 1.0))
    counts = Counter(example.kind for example in examples)
    assert counts == {ExampleKind.DOCUMENT: 1, **dict.fromkeys(HOLES, 6)}
    holes = [(e.kind, e.prefix, e.middle, e.suffix) for e in cut(make_module("alpha", 20), max_prefix=9**9)]
    assert len(set(holes)) == len(holes)


def test_the_same_seed_cuts_the_same_holes_and_another_does_not() -> None:
    text = make_module("alpha", 10)
    assert cut(text, 3) == cut(text, 3)
    assert cut(text, 3) != cut(text, 4)


def test_a_line_ends_where_the_line_ends_and_the_end_is_the_end() -> None:
    text = make_module("alpha", 20)
    for example in cut(text, max_prefix=9**9, max_suffix=9**9):
        if example.kind is ExampleKind.INFILL_LINE:
            assert "\n" not in example.middle
            assert example.suffix[:1] in ("", "\n")
        if example.kind is ExampleKind.INFILL_LINES:
            assert "\n" in example.middle and example.suffix[:1] in ("", "\n")
        if example.kind is ExampleKind.INFILL_END:
            assert example.suffix == "" and text.endswith(example.middle)


@pytest.mark.parametrize("text", ["", "\n", "x", "   \n   \n"])
def test_files_without_room_for_a_hole_give_no_hole(text: str) -> None:
    assert [example.kind for example in cut(text)] == [ExampleKind.DOCUMENT]


def test_windows_keep_whole_lines_around_the_hole() -> None:
    text = "".join(f"line number {number}\n" for number in range(100))
    for example in cut(text, max_prefix=60, max_suffix=60):
        if example.kind is ExampleKind.DOCUMENT:
            continue
        place = text.index(example.prefix + example.middle + example.suffix)
        assert place == 0 or text[place - 1] == "\n"
        end = place + len(example.prefix + example.middle + example.suffix)
        assert end == len(text) or text[end - 1] == "\n" or not example.suffix


@given(st.text(alphabet="ab\n", max_size=80), st.integers(0, 30))
def test_a_window_is_within_its_limit_or_one_line(text: str, limit: int) -> None:
    end, start = keep_end(text, limit), keep_start(text, limit)
    assert text.endswith(end) and (len(end) <= limit or "\n" not in end)
    assert text.startswith(start) and (len(start) <= limit or "\n" not in start[:-1])


def test_python_nodes_are_whole_expressions_statements_and_bodies() -> None:
    lines = ["# größe 𝒳", "class A:", "    def f(self, b):", "        if b > 1:", "            return g(b, [1, 2])"]
    text = "\n".join([*lines, '        x = "é" + h(b)', ""])
    nodes = find_nodes(text, "python")
    pieces = {kind: [text[node.start : node.end] for node in nodes if node.kind is kind] for kind in NodeKind}
    assert "g(b, [1, 2])" in pieces[NodeKind.EXPRESSION] and '"é" + h(b)' in pieces[NodeKind.EXPRESSION]
    assert "return g(b, [1, 2])" in pieces[NodeKind.STATEMENT]
    assert any(piece.startswith("if b > 1") and piece.endswith("h(b)") for piece in pieces[NodeKind.BODY])
    for piece in pieces[NodeKind.EXPRESSION]:
        if not piece.startswith("("):
            ast.parse(piece, mode="eval")


@pytest.mark.parametrize(
    ("language", "text", "body"),
    [
        ("javascript", "function f(a) {\n  return a + 1;\n}\n", "\n  return a + 1;\n"),
        (
            "typescriptreact",
            "const f = (a: number) => {\n  return <b>{a + 1}</b>;\n};\n",
            "\n  return <b>{a + 1}</b>;\n",
        ),
        ("go", "package a\n\nfunc f(a int) int {\n\treturn a + 1\n}\n", "\n\treturn a + 1\n"),
        ("rust", "fn f(a: i32) -> i32 {\n    a + 1\n}\n", "\n    a + 1\n"),
        ("java", "class A {\n  int f(int a) {\n    return a + 1;\n  }\n}\n", "\n    return a + 1;\n  "),
        ("c", "int f(int a) {\n  return a + 1;\n}\n", "\n  return a + 1;\n"),
        ("cpp", "int f(int a) {\n  return a + 1;\n}\n", "\n  return a + 1;\n"),
    ],
)
def test_bodies_of_other_languages_stand_between_their_braces(language: str, text: str, body: str) -> None:
    nodes = find_nodes(text, language)
    assert body in [text[node.start : node.end] for node in nodes if node.kind is NodeKind.BODY]
    assert any(text[node.start : node.end] == "a + 1" for node in nodes if node.kind is NodeKind.EXPRESSION)


def test_a_language_without_a_grammar_is_named() -> None:
    with pytest.raises(ConfigError, match="no grammar for the language 'cobol'"):
        find_nodes("x", "cobol")
