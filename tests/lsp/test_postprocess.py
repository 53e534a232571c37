"""What the filters make of an engine's answer. ``|`` is the cursor; the result is the line after accepting."""

import pytest

from lsp_server.brackets import balance_of
from lsp_server.positions import Encoding
from lsp_server.postprocess import Drop, place_at, refine
from lsp_server.postprocess.indentation import restore_indentation
from lsp_server.postprocess.leading_space import without_doubled_space
from lsp_server.snapshot import Point, Snapshot
from lsp_server.text_sync import split_lines


def accept(marked, answer, *, single_line=False, invoked=False, may_replace=True):
    """The document after the answer was accepted, or the reason why nothing was shown."""
    text = marked.replace("|", "", 1)
    before = marked.split("|", 1)[0]
    lines = split_lines(text)
    snapshot = Snapshot(uri="u", version=1, language="python", encoding=Encoding.UTF16, lines=tuple(lines))
    line = len(split_lines(before)) - 1
    point = Point(line, len(split_lines(before)[-1]))
    place = place_at(snapshot, point, single_line=single_line, invoked=invoked, may_replace=may_replace)
    proposal = refine(answer, place)
    if isinstance(proposal, Drop):
        return proposal.reason
    rest = snapshot.content(line)[point.column :]
    assert proposal.num_replaced <= len(rest)  # the range stays on its line
    return before + proposal.text + text[len(before) + proposal.num_replaced :]


@pytest.mark.parametrize(
    ("marked", "answer", "expected"),
    [
        ("foo(|)", "a)", "foo(a)"),
        ("foo(|)", "a", "foo(a)"),
        ("foo(|)", "bar(b)", "foo(bar(b))"),
        ("foo(|)", "bar(b))", "foo(bar(b))"),
        ("foo(|)", "a) + bar(b", "foo(a) + bar(b)"),
        ("def f(|)", "a, b):\n    return a", "def f(a, b):\n    return a"),
        ("def f(|):", "a, b):\n    return a", "def f(a, b):\n    return a"),
        ("f(g(|))", "a)", "f(g(a))"),
        ("f(g(|))", "a))", "f(g(a))"),
        ("f(|);", "a);", "f(a);"),
        ("print('|')", "hi')", "print('hi')"),
        ("print('|')", "hi", "print('hi')"),
        ("print(|)", "'it', \"x\")", "print('it', \"x\")"),
        ("x = [|]", "\n    1,\n    2,\n]", "x = [\n    1,\n    2,\n]"),
        ('f(|"abc")', '"x", ', 'f("x", "abc")'),
    ],
)
def test_closers_right_of_the_cursor(marked, answer, expected):
    assert accept(marked, answer) == expected


def test_closers_are_cut_where_the_range_is_given_by_the_editor():
    assert accept("foo(|)", "a)", may_replace=False) == "foo(a)"


@pytest.mark.parametrize(
    ("marked", "answer", "expected"),
    [
        ("foo(|, b)", "a, b)", "foo(a, b)"),
        ("x = | + 1", "y + 1", "x = y + 1"),
        ("foo(|) + b", "bar(c)", "foo(bar(c)) + b"),
        ("    return|\n\ndef g():\n    pass\n", " 1\n\ndef g():\n    pass", "    return 1\n\ndef g():\n    pass\n"),
        ("if a {\n    |\n}\n", "b()\n}", "if a {\n    b()\n}\n"),
        ("|\nb\nc\nd\n", "a\nb\nc\nelse", "a\nb\nc\nd\n"),
        ("a = |\nb = 2\n", "1\nb = 3", "a = 1\nb = 3\nb = 2\n"),
    ],
)
def test_what_follows_is_not_repeated(marked, answer, expected):
    assert accept(marked, answer) == expected


@pytest.mark.parametrize(
    ("marked", "answer", "reason"),
    [
        ("x|", "", "blank"),
        ("x|", " \n ", "blank"),
        ("|\nreturn 1\n", "return 1", "repeats_next_line"),
        ("f(x|", ")", "only_closers"),
        ("f(x|)", ")", "nothing_new"),
    ],
)
def test_worthless_answers_are_dropped_with_a_reason(marked, answer, reason):
    assert accept(marked, answer) == reason


def test_invoked_closers_are_shown():
    assert accept("f(x|", ")", invoked=True) == "f(x)"


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_answers_take_the_line_ends_of_the_document(end):
    assert (
        accept(f"def f():{end}    |{end}", "a = 1\n    return a\n") == f"def f():{end}    a = 1{end}    return a{end}"
    )
    assert accept(f"def f():{end}|", "    a\n    b") == f"def f():{end}    a{end}    b"


def test_one_line_is_kept_in_single_line_mode():
    assert accept("x = | + y", "1\n2", single_line=True) == "x = 1 + y"


def test_a_space_is_kept_before_further_text_and_cut_at_the_end_of_a_line():
    assert accept("foo(|b)", "a, ") == "foo(a, b)"
    assert accept("x =|", " 1  \n\n") == "x = 1"


@pytest.mark.parametrize(
    ("text", "expected", "closed", "num_open"),
    [
        ("a)b", "", (1,), 0),
        ("(a)b)", "", (4,), 0),
        ("([{", "", (), 3),
        ("'(' )", "", (4,), 0),
        ("x')", "'", (1, 2), 0),
        ("it's\n)", "", (5,), 0),
        ("'\\')'", "", (), 0),
    ],
)
def test_balance(text, expected, closed, num_open):
    balance = balance_of(text, expected)
    assert (balance.closed, balance.num_open) == (closed, num_open)


@pytest.mark.parametrize(
    ("prefix", "text", "expected"),
    [
        ("def f(v):\n    ", " v.sort()\n     n = len(v)\n     if n:\n         return 1\n\n",
         "v.sort()\n    n = len(v)\n    if n:\n        return 1\n\n"),
        ("        return ", " f.read()", "f.read()"),
        ("    ", "    return 1", "    return 1"),
        ("", " x", " x"),
        ("x =", " 1", " 1"),
        ("x = ", "  # note", "  # note"),
        ("    ", "   ", "   "),
        ("class A:\n    ", " x = 1\n\ny = 2\n  z", "x = 1\n\ny = 2\n  z"),
        ("\t", " x", " x"),
    ],
)  # fmt: skip
def test_a_space_that_stands_there_already_is_not_written_again(prefix, text, expected):
    assert without_doubled_space(prefix, text) == expected


def test_an_edited_selection_keeps_its_indentation():
    original = "    def f(self):\n        return 1\n"
    assert restore_indentation(original, "def f(self):\n\n    return 2\n") == "    def f(self):\n\n        return 2\n"
    assert restore_indentation(original, "    def f(self):\n        return 2\n").startswith("    def")
    assert restore_indentation("x = 1\n", "y\n") == "y\n"
    assert restore_indentation("\tx\n\n\t\ty\n", "x\ny") == "\tx\n\ty"
