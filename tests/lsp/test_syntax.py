"""Definitions, declarations, imports, strings and comments, in each language with a grammar."""

import subprocess
import sys

import pytest
from helpers.lsp_client import ROOT
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.grammars import GRAMMARS
from lsp_server.positions import Encoding
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import Trees, declarations, enclosing_definition, imports, kind_at, names_in, parse
from lsp_server.syntax.node_kinds import KINDS
from lsp_server.text_sync import Document, split_lines


def snapshot(text, language, version=1):
    lines = tuple(split_lines(text))
    return Snapshot(uri="u", version=version, language=language, encoding=Encoding.UTF16, lines=lines)


def at_mark(marked, language):
    """The text without ``|``, and where it stood."""
    before = split_lines(marked.split("|", 1)[0])
    return snapshot(marked.replace("|", "", 1), language), Point(len(before) - 1, len(before[-1]))


def definition(marked, language):
    """The text of the definition around the mark, its name and its kind."""
    document, point = at_mark(marked, language)
    found = enclosing_definition(document, point)
    if found is None:
        return None
    return "".join(document.lines[found.first_line : found.end_line]), found.name, found.kind


def test_every_grammar_loads_and_has_its_table():
    assert GRAMMARS.keys() == KINDS.keys()
    for language in GRAMMARS:
        tree = parse(["x"], language)
        assert tree is not None
        # A name that the grammar does not have would never match.
        named = {tree._grammar.node_kind_for_id(number) for number in range(tree._grammar.node_kind_count)}
        kinds = KINDS[language]
        for group in (kinds.definitions, kinds.functions, kinds.bodies, kinds.strings, kinds.interpolations):
            unknown = set(group) - named
            # JavaScript and TypeScript share a table of functions.
            assert unknown <= {"field_definition", "public_field_definition"}, (language, unknown)


PYTHON = "# about f\n@d(1)\ndef f(a,\n      b):\n    return 1\n"


@pytest.mark.parametrize(
    ("language", "marked", "expected"),
    [
        ("python", PYTHON.replace("return", "ret|urn"), (PYTHON, "f", "function")),
        ("python", PYTHON.replace("@d", "|@d"), (PYTHON, "f", "function")),
        ("python", PYTHON.replace("about", "ab|out"), (PYTHON, "f", "function")),
        ("python", PYTHON.replace("1\n", "1|\n"), (PYTHON, "f", "function")),
        ("python", PYTHON.replace("    return", "|    return"), (PYTHON, "f", "function")),
        ("python", "class A:\n    x = |1\n", ("class A:\n    x = 1\n", "A", "class")),
        ("python", "class A:\n    def m(self):\n        |pass\n", ("    def m(self):\n        pass\n", "m", "method")),
        ("python", "x = 1|\n\ndef f(): pass\n", None),
        ("python", "x = 1  # no|te\ndef f(): pass\n", None),
        ("javascript", "/** d */\nexport const f = (a) => {\n  ret|urn 1;\n};\n",
         ("/** d */\nexport const f = (a) => {\n  return 1;\n};\n", "f", "function")),
        ("javascript", "ex|port default class A {}\n", ("export default class A {}\n", "A", "class")),
        ("typescript", "interface A {\n  x: nu|mber;\n}\n", ("interface A {\n  x: number;\n}\n", "A", "interface")),
        ("typescriptreact", "const A = () => {\n  return <b>|</b>;\n};\n",
         ("const A = () => {\n  return <b></b>;\n};\n", "A", "function")),
        ("go", "// doc\nfunc (r *R) M() {\n\tx|()\n}\n", ("// doc\nfunc (r *R) M() {\n\tx()\n}\n", "M", "method")),
        ("go", "type S struct {\n\tA i|nt\n}\n", ("type S struct {\n\tA int\n}\n", "S", "struct")),
        ("rust", "/// doc\n#[d|erive(A)]\npub struct S {}\n",
         ("/// doc\n#[derive(A)]\npub struct S {}\n", "S", "struct")),
        ("rust", "impl T for S {\n    fn m(&self) {\n        |x()\n    }\n}\n",
         ("    fn m(&self) {\n        x()\n    }\n", "m", "method")),
        ("java", "class A {\n  /** d */\n  @B\n  int m() {\n    return |1;\n  }\n}\n",
         ("  /** d */\n  @B\n  int m() {\n    return 1;\n  }\n", "m", "method")),
        ("c", "static int *g(void)\n{\n  return |0;\n}\n",
         ("static int *g(void)\n{\n  return 0;\n}\n", "g", "function")),
        ("c", "struct T {\n  int b;\n};|\n", ("struct T {\n  int b;\n};\n", "T", "struct")),
        ("c", "typedef struct {\n  int |b;\n} S;\n", ("typedef struct {\n  int b;\n} S;\n", "S", "struct")),
        ("cpp", "template <class T>\nT f(T a) {\n  return |a;\n}\n",
         ("template <class T>\nT f(T a) {\n  return a;\n}\n", "f", "function")),
        ("cpp", "int n::C::r(int) {\n  return |1;\n}\n",
         ("int n::C::r(int) {\n  return 1;\n}\n", "n::C::r", "function")),
        ("ruby", "class A\n  def f(x)\n    x|\n  end\nend\n", ("  def f(x)\n    x\n  end\n", "f", "function")),
        ("ruby", "class A\n  def f(x)\n    x\n  en|d\nend\n", ("  def f(x)\n    x\n  end\n", "f", "function")),
        ("plaintext", "some words|\n", None),
    ],
)  # fmt: skip
def test_the_definition_around_a_place(language, marked, expected):
    assert definition(marked, language) == expected


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lines_are_the_documents_own_whatever_ends_them(end):
    marked = f"a = '漢😀'{end}def f():{end}    x = '😀' + y|{end}"
    assert definition(marked, "python") == (f"def f():{end}    x = '😀' + y{end}", "f", "function")


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "X: int = 3\n@d\ndef f(a: int) -> int:\n    return 1\n"
         "class A(B):\n    z: int = 1\n    def m(self): pass\n",
         ["X: int = 3", "@d\ndef f(a: int) -> int: ...", "class A(B): ...", "A> z: int = 1", "A> def m(self): ..."]),
        ("javascript", "export const f = (a) => { g() };\nconst K = 1;\nclass A extends B { y = 2; m(a) {} }\n",
         ["export const f = (a) => { ... }", "const K = 1;",
          "class A extends B { ... }", "A> y = 2", "A> m(a) { ... }"]),
        ("typescript", "interface A { x: number }\n"
         "export abstract class D { private n(x: number): string { return '' } }\n",
         ["interface A { x: number }", "export abstract class D { ... }", "D> private n(x: number): string { ... }"]),
        ("go", "func F[T any](x T) error { return nil }\ntype S struct { A int }\nconst A = 1\n",
         ["func F[T any](x T) error { ... }", "type S struct { A int }", "A = 1"]),
        ("rust", "pub struct S { pub a: i32 }\nimpl S { fn m(&self) -> i32 { 1 } }\nconst C: i32 = 1;\n",
         ["pub struct S { pub a: i32 }", "impl S { ... }", "S> fn m(&self) -> i32 { ... }", "const C: i32 = 1;"]),
        ("java", "public class X extends Y { int f = 1; public int m(int a) { return 1; } X() {} }\n",
         ["public class X extends Y { ... }", "X> int f = 1;", "X> public int m(int a) { ... }", "X> X() { ... }"]),
        ("c", "#define N 1\ntypedef struct { int a; } S;\nint f(int a);\nstatic int *g(void) { return 0; }\n",
         ["#define N 1", "typedef struct { int a; } S;", "int f(int a);", "static int *g(void) { ... }"]),
        ("cpp", "namespace n { class C { int m(int a) const; void q() {} }; }\n",
         ["namespace n { ... }", "n> class C { ... }", "C> int m(int a) const;", "C> void q() { ... }"]),
    ],
)  # fmt: skip
def test_declarations_are_signatures_without_bodies(language, text, expected):
    tree = parse(text.split("\n"), language)
    found = [(f"{d.container}> " if d.container else "") + d.signature for d in declarations(tree)]
    assert found == expected


def test_a_value_that_is_long_is_left_out_of_its_declaration():
    tree = parse([f"TABLE: dict[str, int] = {{{', '.join(f'{n}: {n}' for n in range(99))}}}"], "python")
    assert [d.signature for d in declarations(tree)] == ["TABLE: dict[str, int] = ..."]


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("python", "import os.path as p\nfrom .a import b as c, d\nfrom x import *\n",
         [("os.path", "", "p"), (".a", "b", "c"), (".a", "d", "d"), ("x", "*", "")]),
        ("javascript", "import d, {a as b} from 'x'; import * as n from \"y\"; const {r, q: w} = require('z');\n",
         [("x", "default", "d"), ("x", "a", "b"), ("y", "", "n"), ("z", "r", "r"), ("z", "q", "w")]),
        ("typescript", "import type {T} from './t';\n", [("./t", "T", "T")]),
        ("go", 'import (\n f "fmt"\n "os/exec"\n . "math"\n)\n',
         [("fmt", "", "f"), ("os/exec", "", "exec"), ("math", "*", ".")]),
        ("rust", "use a::{b, c as d, e::*, self};\nuse x::y;\n",
         [("a", "b", "b"), ("a", "c", "d"), ("a::e", "*", ""), ("a", "", "a"), ("x", "y", "y")]),
        ("java", "import a.b.C;\nimport static a.B.*;\n", [("a.b", "C", "C"), ("a.B", "*", "")]),
        ("c", '#include <a.h>\n#include "b/c.h"\n', [("a.h", "*", ""), ("b/c.h", "*", "")]),
    ],
)  # fmt: skip
def test_imports(language, text, expected):
    tree = parse(text.split("\n"), language)
    assert [(found.module, found.name, found.alias) for found in imports(tree)] == expected


@pytest.mark.parametrize(
    ("language", "marked", "expected"),
    [
        ("python", "x = |'a'", "code"),
        ("python", "x = '|a'", "string"),
        ("python", "x = 'a|'", "string"),
        ("python", "x = 'a'|", "code"),
        ("python", "x = 'abc|\ny = 2\n", "string"),
        ("python", "x = f'a{b|}c'", "code"),
        ("python", "x = f'a{b}c|'", "string"),
        ("python", '"""a\nb|\n"""', "string"),
        ("python", "x = 1  # no|te", "comment"),
        ("python", "x = 1  # note|", "comment"),
        ("python", "# note|\nx = 1\n", "comment"),
        ("python", "# note\n|x = 1\n", "code"),
        ("python", "x = '#'|", "code"),
        ("python", "foo(|", "code"),
        ("python", "foo('|", "string"),
        ("javascript", "x = `a${b|}`", "code"),
        ("javascript", "x = `a|${b}`", "string"),
        ("javascript", "/* a| */ x", "comment"),
        ("javascript", "/* a */| x", "code"),
        ("javascript", "x() // it's|", "comment"),
        ("go", 'x := "a|"', "string"),
        ("go", "x := `a|`", "string"),
        ("rust", "fn f<'a>(x: &'a str) {| }", "code"),
        ("rust", "/// doc|", "comment"),
        ("java", 'String x = "a|";', "string"),
        ("c", "// c|\nint x;", "comment"),
        ("c", "char c = '|';", "string"),
        ("cpp", 'auto x = R"(a|)";', "string"),
        ("lua", "x = 1 -- no|te", "comment"),
        ("lua", "x = 'a|'", "string"),
        ("lua", "x = 1|", "code"),
        ("plaintext", "it is # not |code", "code"),
    ],
)
def test_strings_and_comments(language, marked, expected):
    assert kind_at(*at_mark(marked, language)) == expected


def test_names_are_counted():
    assert names_in(["foo.bar(baz, foo)", "x = 1", "other"], 0, 2) == {"foo": 2, "bar": 1, "baz": 1}


def test_text_that_is_too_long_or_without_grammar_has_no_tree():
    assert parse(["x"] * 600_000, "python") is None
    assert parse(["x"], "lua") is None


PIECES = ["def f(a):\n", "    return a\n", "class A:\n", "x = '", "'", "(", ")", "😀", "é", "\n", "\r\n", "# c\n", "\t"]
texts = st.lists(st.sampled_from(PIECES), max_size=15).map("".join)


@given(texts, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), texts), max_size=5))
def test_a_tree_that_is_parsed_again_is_the_tree_of_the_new_text(text, edits):
    trees, document = Trees(), Document(uri="u", version=1, language="python", text=text, encoding=Encoding.UTF16)
    trees.of(document.snapshot())
    for version, (start, end, new) in enumerate(edits, start=2):
        old = document.snapshot().text
        start, end = sorted((start % (len(old) + 1), end % (len(old) + 1)))
        document = Document(
            uri="u", version=version, language="python", text=old[:start] + new + old[end:], encoding=Encoding.UTF16
        )
        tree = trees.of(document.snapshot())
        fresh = parse([line.rstrip("\r\n") for line in document.snapshot().lines], "python")
        assert tree.source == fresh.source
        if not fresh.root.has_error:  # recovery from errors may differ with what was parsed before
            assert str(tree.root) == str(fresh.root)


@given(texts, st.data())
def test_no_place_in_any_text_is_fatal(text, data):
    language = data.draw(st.sampled_from(["python", "javascript", "c", "lua"]))
    document = snapshot(text, language)
    line = data.draw(st.integers(0, len(document.lines) - 1))
    point = Point(line, data.draw(st.integers(0, len(document.content(line)))))
    assert kind_at(document, point) in {"code", "string", "comment"}
    found = enclosing_definition(document, point)
    if found is not None:
        assert found.first_line <= line < found.end_line <= len(document.lines)


def test_importing_the_package_imports_no_grammar():
    code = "import sys, lsp_server.syntax; print([n for n in sys.modules if n.startswith('tree_sitter')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
