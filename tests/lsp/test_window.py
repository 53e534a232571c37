"""The text around the cursor that the engine sees, and how still its beginning stands while the user types."""

from hypothesis import given
from hypothesis import strategies as st

from lsp_server.context.window import text_after, text_before, window_around
from lsp_server.positions import Encoding
from lsp_server.snapshot import Point, Snapshot
from lsp_server.text_sync import split_lines


def snapshot(text):
    return Snapshot(uri="u", version=1, language="", encoding=Encoding.UTF16, lines=tuple(split_lines(text)))


@given(st.text("ab\r\n\x0c\u2028😀", max_size=200), st.integers(1, 60), st.integers(0, 60), st.data())
def test_windows_are_ends_and_beginnings_of_the_text_within_the_budget(text, num_before, num_after, data):
    document = snapshot(text)
    line = data.draw(st.integers(0, len(document.lines) - 1))
    point = Point(line, data.draw(st.integers(0, len(document.content(line)))))
    window = window_around(document, point, num_before, num_after)
    plain = [document.content(number) for number in range(len(document.lines))]
    before = "\n".join([*plain[:line], plain[line][: point.column]])
    after = "\n".join([plain[line][point.column :], *plain[line + 1 :]])
    assert before.endswith(window.prefix) and len(window.prefix) <= num_before
    assert after.startswith(window.suffix) and len(window.suffix) <= num_after
    assert len(before) > num_before or window.prefix == before
    if len(window.prefix) < len(before) and len(plain[line][: point.column]) <= num_before:
        assert before[: -len(window.prefix) or None].endswith("\n")  # it begins at the start of a line


def test_a_line_end_counts_as_one_character_whatever_it_is_in_the_document():
    assert text_before(snapshot("a\r\nb\r\n"), Point(2, 0), 4) == "a\nb\n"


def test_the_beginning_moves_rarely_while_lines_are_typed():
    lines = [f"line number {number} with some words" for number in range(400)]
    begins, num_moves = None, 0
    for count in range(100, 400):
        text = "\n".join(lines[:count])
        window = text_before(snapshot(text), Point(count - 1, len(lines[count - 1])), 4000)
        begin = window.split("\n", 1)[0]
        assert 4000 >= len(window) >= 1500
        num_moves += begin != begins
        begins = begin
    assert num_moves <= 2 * 300 / 64 + 2


def test_the_beginning_stands_still_while_characters_are_typed():
    head = "".join(f"line number {number}\n" for number in range(1000))
    begins = set()
    for count in range(60):
        text = head + "x" * count
        window = text_before(snapshot(text), Point(1000, count), 4000)
        begins.add(window.split("\n", 1)[0])
    assert len(begins) <= 2


def test_a_line_longer_than_the_budget_moves_by_quarters():
    begins = {
        text_before(snapshot("y" * 5 + "x" * n), Point(0, 5 + n), 100)[:1] + str(n // 25) for n in range(200, 300)
    }
    lengths = [len(text_before(snapshot("x" * n), Point(0, n), 100)) for n in range(200, 300)]
    assert begins and all(75 <= length <= 100 for length in lengths)


def test_half_a_surrogate_pair_never_reaches_the_wire():
    window = window_around(snapshot("a\ud83d"), Point(0, 2), 100, 100)
    assert window.prefix == "a\ufffd"
    assert text_after(snapshot("abc\ndef"), Point(0, 1), 2) == "bc"
