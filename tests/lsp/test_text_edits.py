"""Minimal hunks, and what happens to them when the document changed meanwhile."""

from hypothesis import given
from hypothesis import strategies as st
from lsprotocol.types import Position, Range, TextDocumentContentChangePartial

from lsp_server.positions import Encoding
from lsp_server.snapshot import Snapshot
from lsp_server.text_edits import (
    Lines,
    hunks_between,
    replacement_lines,
    selected_text,
    shift_lines,
    text_edits,
    whole_lines,
)
from lsp_server.text_sync import Document, split_lines

pieces = st.lists(st.sampled_from(["a", "b", "😀", "\n", "\n", "\r\n"]), max_size=14).map("".join)


def snapshot(text, version=1):
    return Snapshot(uri="u", version=version, language="", encoding=Encoding.UTF16, lines=tuple(split_lines(text)))


def apply(text, edits):
    """Edits of one change mean the old text: applied from the last to the first."""
    document = Document(uri="u", version=1, language="", text=text, encoding=Encoding.UTF16)
    changes = [TextDocumentContentChangePartial(range=edit.range, text=edit.new_text) for edit in reversed(edits)]
    document.apply(changes, 2)
    return document.snapshot().text


def span(start_line, start, end_line, end):
    return Range(start=Position(start_line, start), end=Position(end_line, end))


@given(pieces, pieces, st.data())
def test_hunks_turn_the_selection_into_the_answer_and_touch_nothing_else(text, answer, data):
    document = snapshot(text)
    first = data.draw(st.integers(0, len(document.lines) - 1))
    end = data.draw(st.integers(first + 1, len(document.lines)))
    lines = Lines(first, end)
    new = replacement_lines(document, lines, answer.replace("\r\n", "\n"), "\n")
    edits = text_edits(document, hunks_between(document, lines, new))
    expected = "".join([*document.lines[:first], *new, *document.lines[end:]])
    assert apply(text, edits) == expected


def test_unchanged_lines_are_left_alone():
    document = snapshot("a\nb\nc\nd\n")
    lines = Lines(0, 4)
    new = replacement_lines(document, lines, "a\nB\nc\nD\n", "\n")
    edits = text_edits(document, hunks_between(document, lines, new))
    assert [(edit.range.start.line, edit.new_text) for edit in edits] == [(1, "B\n"), (3, "D\n")]


def test_mixed_line_ends_stay_where_the_lines_stay():
    document = snapshot("a\r\nb\nc\nd\r\ne\n")
    lines = Lines(0, 5)
    new = replacement_lines(document, lines, "a\nB\nc\nnew\nd\ne\n", "\r\n")
    edits = text_edits(document, hunks_between(document, lines, new))
    assert [(edit.range.start.line, edit.new_text) for edit in edits] == [(1, "B\n"), (3, "new\r\n")]


def test_the_last_line_keeps_its_lack_of_a_terminator():
    document = snapshot("a\r\nb")
    assert selected_text(document, Lines(0, 2)) == "a\nb"
    assert replacement_lines(document, Lines(0, 2), "x\ny\nz\n", "\r\n") == ["x\r\n", "y\r\n", "z"]


def test_a_selection_means_whole_lines():
    document = snapshot("one\ntwo\nthree\n")
    assert whole_lines(document, span(0, 1, 1, 2)) == Lines(0, 2)
    assert whole_lines(document, span(0, 0, 1, 0)) == Lines(0, 1)  # as editors select a whole line
    assert whole_lines(document, span(1, 0, 1, 0)) == Lines(1, 2)
    assert whole_lines(document, span(1, 2, 0, 1)) == Lines(0, 2)
    assert whole_lines(document, span(0, 0, 99, 0)) == Lines(0, 3)


def test_changes_elsewhere_move_the_selection_and_changes_inside_make_it_stale():
    old = snapshot("a\nb\nc\nd\n")
    lines = Lines(1, 3)  # b and c
    assert shift_lines(old, snapshot("new\na\nb\nc\nd\n", 2), lines) == 1
    assert shift_lines(old, snapshot("b\nc\nd\n", 2), lines) == -1
    assert shift_lines(old, snapshot("a\nb\nc\nd\ne\n", 2), lines) == 0
    assert shift_lines(old, snapshot("a\nb\nX\nd\n", 2), lines) is None
    assert shift_lines(old, snapshot("a\nb\nmore\nc\nd\n", 2), lines) is None
    assert shift_lines(old, snapshot("", 2), lines) is None
    assert shift_lines(old, snapshot("a\nb\nc\nd\n", 2), lines) == 0
