"""Rewrites of the languages that are read with tree-sitter."""

# ruff: noqa: E501 - rows of tables

from __future__ import annotations

import re
from random import Random

import pytest

from train.data.examples import EditExample, Origin
from train.data.synthetic import make_edits
from train.data.synthetic.catalogue import TREE_REWRITES
from train.data.synthetic.tree_source import parse_tree


def edits_of(text: str, language: str) -> list[EditExample]:
    origin = Origin(source="demo@1", path="demo", licence="MIT", language=language)
    return [example for seed in range(15) for example in make_edits(text, language, origin, Random(seed), 50)]


# Name of the rewrite, language, the author's file, a pattern of what the user has, a pattern of the answer.
CASES = [
    ("rename_variable", "go", "package a\n\nfunc f(xs []int) int {\n\tidx := 0\n\tidx += len(xs)\n\treturn idx\n}\n", r"return idx", r"return (?!idx)\w+"),
    ("rename_variable", "rust", "fn f(a: u32) -> u32 {\n    let val = a + 1;\n    val * 2\n}\n", r"let val", r"let value = a \+ 1;\n    value \* 2"),
    ("rename_variable", "java", "class A {\n  int f(int a) {\n    int res = a + 1;\n    return res;\n  }\n}\n", r"int res", r"return (?!res)\w+;"),
    ("rename_variable", "typescript", "function f(a: number) {\n  const msg = a + 1;\n  return { msg: msg };\n}\n", r"msg: msg", r"msg: message"),
    ("rename_variable", "c", "int f(int a) {\n  int buf = a + 1;\n  return buf;\n}\n", r"return buf", r"return buffer"),
    ("doc_comment", "go", "package a\n\n// Half gives the half of a number.\nfunc Half(a int) int {\n\treturn a / 2\n}\n", r"^package a\n\nfunc", r"// Half gives"),
    ("doc_comment", "javascript", "/**\n * Gives the half of a number.\n */\nfunction half(a) {\n  return a / 2;\n}\n", r"^function", r"^/\*\*\n \* Gives"),
    ("comments", "rust", "fn f(a: u32) -> u32 {\n    // two is what the protocol asks for\n    a * 2\n}\n", r"\{\n    a \* 2", r"// two is"),
    ("fix_off_by_one", "java", "class A {\n  boolean f(int a, int b) {\n    return a < b;\n  }\n}\n", r"a <= b", r"a < b"),
    ("fix_wrong_comparison", "cpp", "bool f(int a) {\n  return a == 3;\n}\n", r"a != 3", r"a == 3"),
    ("fix_wrong_connective", "go", "package a\n\nfunc f(a, b bool) bool {\n\treturn a && b\n}\n", r"a \|\| b", r"a && b"),
    ("fix_wrong_operator", "c", "int f(int a) {\n  return a + 3;\n}\n", r"a - 3", r"a \+ 3"),
    ("fix_inverted_condition", "javascript", "function f(a) {\n  if (!a) {\n    return 1;\n  }\n  return a;\n}\n", r"if \(a\)", r"if \(!a\)"),
    ("extract_constant", "typescript", "function f(url: string) {\n  return get(url, { timeoutMs: 5000 });\n}\n", r"5000", r"^const TIMEOUT_MS = 5000;\n\nfunction.*timeoutMs: TIMEOUT_MS"),
    ("strict_equality", "javascript", "function f(a) {\n  return a === 1;\n}\n", r"a == 1", r"a === 1"),
    ("prefer_const", "javascript", "function f(a) {\n  const b = a;\n  return b;\n}\n", r"(let|var) b", r"const b"),
    ("template_string", "javascript", "function f(a) {\n  return `id ${a.id}!`;\n}\n", r"'id ' \+ a.id \+ '!'", r"`id"),
    ("fix_missing_await", "typescript", "async function f(a: A) {\n  return await a.load();\n}\n", r"return a.load", r"await a.load"),
    ("add_types", "typescript", "function f(a: string, b?: number): boolean {\n  return !!a;\n}\n", r"f\(a, b\?\) \{", r"f\(a: string, b\?: number\): boolean"),
    ("handle_error", "go", "package a\n\nfunc f() error {\n\tx, err := open()\n\tif err != nil {\n\t\treturn err\n\t}\n\treturn x.Close()\n}\n", r"open\(\)\n\treturn x", r"if err != nil"),
    ("propagate_error", "rust", "fn f(p: &str) -> io::Result<String> {\n    let s = read(p)?;\n    Ok(s)\n}\n", r"read\(p\).unwrap\(\)", r"read\(p\)\?"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "language", "text", "before", "after"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_rewrite(name: str, language: str, text: str, before: str, after: str) -> None:
    found = [
        example
        for example in edits_of(text, language)
        if example.rewrite == name
        and re.search(before, example.before, re.DOTALL)
        and re.search(after, example.after, re.DOTALL)
    ]
    assert found


def test_every_rewrite_has_a_case() -> None:
    assert {rewrite.name for rewrite in TREE_REWRITES} == {case[0] for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_both_sides_parse_and_selections_are_whole_lines(case) -> None:
    for example in edits_of(case[2], case[1]):
        assert parse_tree(example.before, case[1]) is not None
        assert parse_tree(example.after, case[1]) is not None
        assert example.selection != example.edited
        assert example.start == 0 or example.before[example.start - 1] == "\n"
        assert example.edited.endswith("\n")


REFUSED = [
    (
        "javascript",
        "function f(a) {\n  const msg = a;\n  return { msg };\n}\n",
        "a shorthand property would change its key",
    ),
    ("rust", 'fn f(a: u32) {\n    let val = a;\n    println!("{val}");\n    g(val);\n}\n', "a format string names it"),
    ("javascript", "function f(msg) {\n  const g = (msg) => msg;\n  return g(msg);\n}\n", "a parameter has the name"),
]


@pytest.mark.parametrize(("language", "text"), [case[:2] for case in REFUSED], ids=[case[2] for case in REFUSED])
def test_unsafe_renames_are_refused(language: str, text: str) -> None:
    for example in edits_of(text, language):
        if "rename_variable" in example.rewrite:
            assert not re.search(r"\bmsg\b|\bval\b", example.before) or re.search(r"\bmsg\b|\bval\b", example.after)


def test_positions_outside_ascii() -> None:
    text = "// größer als 🎉 alles andere hier\nfunction f(a) {\n  const x = 'ü🎉';\n  return a === 'ß' && x;\n}\n"
    found = [example for example in edits_of(text, "javascript") if example.rewrite == "strict_equality"]
    assert found
    assert all(example.after == text and "a == 'ß' && x" in example.before for example in found)


def test_a_file_with_syntax_errors_gives_no_edits() -> None:
    assert edits_of("function f( {\n", "javascript") == []
