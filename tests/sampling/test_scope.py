"""Which lines of an answer are still inside the place it was written for."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.requests import FinishReason
from diffusion_core.sampling.long_strings import open_string, scan_strings
from diffusion_core.sampling.stop import ScopeRule, Stop
from diffusion_core.scope import IndentedScope, width_of

CURSOR = "‸"
CASES = {
    "with nothing below the function may end": (
        "def f(s):\n    for c in s:\n        ‸",
        "x(c)\n    return s\n\nf(1)",
        "x(c)\n    return s\n",
    ),
    "nested functions end with the outermost": (
        "def f():\n    def g():\n        if a:\n            ‸\n",
        "return 1\n        return 2\n\n    return g()\n\n\ndef h():",
        "return 1\n        return 2\n\n    return g()\n\n",
    ),
    "a method ends at the next one": (
        "class A:\n    def f(self):\n        for x in self:\n            ‸",
        "x()\n        return 1\n\n    def g(self):",
        "x()\n        return 1\n",
    ),
    "a line below keeps what belongs to its block": (
        "def f():\n    for x in y:\n        if x:\n            ‸\n    return 2\n",
        "a()\n        b()\n    c()\n",
        "a()\n        b()",
    ),
    "the block of the line below is not left": (
        "def f():\n    if x:\n        ‸\n        z = 1\n",
        "y = 1\n    return y\n",
        "y = 1",
    ),
    "a clause goes on with the statement around the cursor": (
        "def f():\n    if x:\n        ‸\n    return 2\n",
        "a()\n    else:\n        b()\n    c()\n",
        "a()\n    else:\n        b()",
    ),
    "a clause is not taken from the lines below": (
        "def f():\n    if x:\n        ‸\n    else:\n        z()\n",
        "a()\n    else:\n        b()\n",
        "a()",
    ),
    "a clause would take the lines below along": (
        "def f():\n    if x:\n        ‸\n        z()\n",
        "a()\n    else:\n        b()\n",
        "a()",
    ),
    "deeper lines below want a block to stand in": (
        "for c in s:\n    if c:\n        ‸\n            z()\n",
        "a()\n    elif d:\n        b()\n        if e:\n",
        "a()\n    elif d:\n        b()\n        if e:\n",
    ),
    "outside of functions only the block is the cursor's": (
        "try:\n    ‸",
        "a()\nexcept ValueError:\n    b()\nc()\n",
        "a()\nexcept ValueError:\n    b()",
    ),
    "a cursor without indentation goes by the answer": (
        "def f():\n    for x in y:\n‸\n    return 1\n",
        "        a()\n    b()\n",
        "        a()",
    ),
    "headers over several lines are no end": (
        "def f(\n    a,\n) -> int:\n    if a:\n        ‸",
        "b()\n    return 1\n\nf(1)",
        "b()\n    return 1\n",
    ),
}


def kept(document: str, answer: str) -> str:
    """The answer up to the first line outside."""
    before, after = document.split(CURSOR)
    lines = answer.split("\n")
    return "\n".join(lines[: IndentedScope(before, after).first_outside(lines)])


@pytest.mark.parametrize(("document", "answer", "expected"), CASES.values(), ids=CASES)
def test_an_answer_ends_where_its_place_ends(document: str, answer: str, expected: str) -> None:
    assert kept(document, answer) == expected


def test_clauses_are_no_keys() -> None:
    scope = IndentedScope("a:\n  ", "", has_clauses=False)
    assert scope.first_outside(["b: 1", "else: 2"]) == 1


def test_lines_inside_strings_are_no_end() -> None:
    lines = ['x = """', "no end", '"""', "y = 1"]
    assert IndentedScope("def f():\n    ", "").first_outside(lines, continued={1, 2}) == 3


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Functions with nested blocks; every one of them parses."""

    def block(depth: int, budget: int) -> list[str]:
        pad, lines = "    " * depth, list[str]()
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(["call", "call", "if", "else", "try"] if depth < budget else ["call"]))
            if kind == "call":
                lines.append(f"{pad}a()")
            else:
                lines += [f"{pad}{'try' if kind == 'try' else 'if b'}:", *block(depth + 1, budget)]
                lines += [f"{pad}{'finally' if kind == 'try' else 'else'}:", *block(depth + 1, budget)] * (kind != "if")
        return lines

    return "\n".join(line for _ in range(draw(st.integers(1, 2))) for line in ["def f():", *block(1, 4)]) + "\n"


@given(programs(), st.data())
def test_lines_of_a_whole_function_are_never_cut(program: str, data: st.DataObject) -> None:
    lines = program.split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("def ")]
    end = starts[1] if len(starts) > 1 else len(lines) - 1
    first = data.draw(st.integers(1, end - 1))
    prefix = "\n".join([*lines[:first], " " * width_of(lines[first])])
    hole = "\n".join(lines[first:end]).lstrip()
    suffix = "\n" + "\n".join(lines[end:])
    assert IndentedScope(prefix, suffix).first_outside([*hole.split("\n"), "def g():"]) == end - first


@given(programs(), programs(), st.data())
def test_what_is_kept_changes_no_block_below(program: str, other: str, data: st.DataObject) -> None:
    lines, answer = program.split("\n")[:-1], other.split("\n")[1:]
    first = data.draw(st.integers(1, len(lines) - 1))
    depth = width_of(lines[first])
    if not depth:
        return
    indented = [" " * max(depth - 4, 0) + line for line in answer if line]
    kept_lines = indented[
        : IndentedScope("\n".join([*lines[:first], ""]), "\n" + "\n".join(lines[first:])).first_outside(indented)
    ]
    if not kept_lines:
        return
    below = lines[first:]
    # The line below still stands in a block that was there before the answer, as deep as before.
    is_clause = below[0].strip().split(" ")[0].rstrip(":") in ("else", "finally", "elif", "except")
    if not is_clause:
        assert all(width_of(line) >= depth for line in kept_lines)
        ast.parse("\n".join([*lines[:first], *kept_lines, *below]))


@given(programs(), st.integers(1, 9), st.data())
def test_the_size_of_the_pieces_does_not_matter(program: str, step: int, data: st.DataObject) -> None:
    lines = program.split("\n")
    first = data.draw(st.integers(1, len(lines) - 1))
    prefix, answer = "\n".join([*lines[:first], ""]), "\n".join(lines[first:] or [""]) + "x = 1\n"
    whole = ScopeRule(prefix).check(answer, len(answer))
    rule, found = ScopeRule(prefix), None
    for end in range(step, len(answer) + step, step):
        if found := rule.check(answer[:end], step):
            break
    assert found == whole


PIECES = st.sampled_from(
    ["\n", "\n\n", "  ", "    ", "\t", " ", "x", "el", "se", "else:", "elif", "case ", ")", '"', '""', '"""', "'''",
     "\\", "# ", "\r", "\x0c", "def g():"]
)  # fmt: skip
PREFIXES = (
    "",
    "    ",
    "x = ",
    "def f():\n    ",
    "def f(a",
    "class A:\n    def f(self):\n        if a:\n            ",
    'def f():\n    """Says\n    ',
    'def f():\n    x = ""',
    "def f():\n    try:\n        g()\n    ",
)


@given(st.sampled_from(PREFIXES), st.lists(PIECES, max_size=24), st.sampled_from(["", "\n    y\n", "\n  else:\n"]))
def test_what_is_remembered_of_a_text_changes_nothing(prefix: str, pieces: list[str], suffix: str) -> None:
    rule, scope, text = ScopeRule(prefix, suffix), IndentedScope(prefix, suffix), ""
    head = prefix[prefix.rfind("\n") + 1 :]
    for piece in pieces:
        text += piece
        lines = text.split("\n")
        outside = scope.first_outside(lines, scan_strings(head + text, open_string(prefix))[1])
        kept = "".join(f"{line}\n" for line in lines[:outside])
        assert rule.check(text, len(piece)) == (None if outside is None else Stop(len(kept), FinishReason.SCOPE))
        if outside is not None:
            break
    other = "\n" + text[1:]  # as long, and not the text that was remembered
    assert rule.check(other, 1) == ScopeRule(prefix, suffix).check(other, 1)
