"""Positions, line ends and writing of source files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.cli.diffs import make_diff
from diffusion_core.cli.documents import (
    Document,
    PositionError,
    line_end,
    offset_at,
    restore_line_ends,
    split_lines,
    to_line_feeds,
)

PIECES = st.sampled_from(["a", "bc", "é", "\U0001f600", "\u2028", "\x0c", "\n", "\r\n", "\r", ""])
TEXTS = st.lists(PIECES, max_size=12).map("".join)
LINE_FEED_TEXTS = st.lists(st.sampled_from(["a", "b", "c", "\n"]), max_size=12).map("".join)


def make_document(text: str) -> Document:
    return Document(Path("f.py"), text.encode(), text, split_lines(text))


@given(TEXTS)
def test_lines_put_together_are_the_text(text: str) -> None:
    lines = split_lines(text)
    assert "".join(lines) == text
    assert all(line_end(line) for line in lines[:-1]) and not line_end(lines[-1])
    assert len(lines) == 1 + to_line_feeds(text).count("\n")


@given(TEXTS, st.data())
def test_every_place_in_a_text_has_one_position(text: str, data: st.DataObject) -> None:
    document = make_document(text)
    line = data.draw(st.integers(0, len(document.lines) - 1))
    content = document.lines[line].removesuffix(line_end(document.lines[line]))
    column = data.draw(st.integers(0, len(content)))
    character = len(content[:column].encode("utf-16-le")) // 2
    offset = offset_at(document, line, character)
    assert text[:offset] == "".join(document.lines[:line]) + content[:column]


@pytest.mark.parametrize(("line", "character"), [(0, 2), (0, 4), (2, 0), (-1, 0), (0, -1)])
def test_positions_that_do_not_exist(line: int, character: int) -> None:
    with pytest.raises(PositionError):
        offset_at(make_document("a\U0001f600\nb"), line, character)


@given(TEXTS, LINE_FEED_TEXTS, st.sampled_from(["\n", "\r\n"]))
def test_restored_text_differs_in_line_ends_only(original: str, edited: str, newline: str) -> None:
    restored = restore_line_ends(original, edited, newline)
    lines = edited.removesuffix("\n")
    is_cut = bool(original) and not original.endswith(("\n", "\r"))
    assert to_line_feeds(restored) == ("" if not edited else lines if is_cut else lines + "\n")


@given(TEXTS)
def test_an_edit_that_changes_nothing_gives_the_original(text: str) -> None:
    assert restore_line_ends(text, to_line_feeds(text), "\n") == text


@given(TEXTS)
def test_a_missing_or_added_last_line_end_does_not_matter(text: str) -> None:
    without = to_line_feeds(text).removesuffix("\n")
    if without and not text.endswith(("\n\n", "\r\n\n", "\n\r\n", "\r\n\r\n", "\r\r", "\n\r", "\r\r\n")):
        assert restore_line_ends(text, without, "\n") == text


@pytest.mark.parametrize(
    ("original", "edited", "newline", "expected"),
    [
        ("a\r\nb\nc\r\n", "a\nnew\nb\nc\n", "\r\n", "a\r\nnew\r\nb\nc\r\n"),
        ("a\r\nb", "a\nz\n", "\r\n", "a\r\nz"),
        ("a\r\nb\r\n", "", "\r\n", ""),
        ("a\rb\r", "b\na\n", "\r", "b\ra\r"),
        ("", "x\ny\n", "\n", "x\ny\n"),
        ("\r", "\n\n", "\n", "\r\r"),
    ],
)
def test_line_ends_are_restored(original: str, edited: str, newline: str, expected: str) -> None:
    assert restore_line_ends(original, edited, newline) == expected


def test_most_frequent_line_end_is_the_documents() -> None:
    assert make_document("a\r\nb\r\nc\n").newline == "\r\n"
    assert make_document("a").newline == make_document("").newline == "\n"


def test_a_diff_says_where_the_last_newline_is_missing() -> None:
    diff = make_diff("f.py", "a\nb", "a\nc\n")
    assert diff == "--- a/f.py\n+++ b/f.py\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n"
    assert make_diff("f.py", "a\n", "a\n") == ""
