"""Incremental sync against a slow reference that works on the editor's own code units."""

import random
import re
import time

import pytest
from helpers.lsp_client import ReferenceBuffer
from helpers.unit_buffer import UnitBuffer
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from lsprotocol.types import (
    Position,
    Range,
    TextDocumentContentChangePartial,
    TextDocumentContentChangeWholeDocument,
)

from lsp_server.positions import Encoding, without_lone_surrogates
from lsp_server.snapshot import Point
from lsp_server.text_sync import Document, split_lines

PIECES = ["a", "b ", "\t", "é", "e\u0301", "ß", "漢", "😀", "👩\u200d👩\u200d👧", "\n", "\r\n", "\r",
          "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0"]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
encodings = st.sampled_from(list(Encoding))


def open_document(text: str, encoding: Encoding = Encoding.UTF16) -> Document:
    return Document(uri="file:///a.py", version=1, language="python", text=text, encoding=encoding)


def change(start: tuple[int, int], end: tuple[int, int], text: str) -> TextDocumentContentChangePartial:
    return TextDocumentContentChangePartial(range=Range(start=Position(*start), end=Position(*end)), text=text)


@st.composite
def sessions(draw):
    encoding = draw(encodings)
    text = draw(texts)
    edits = draw(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 2**16), st.booleans(), texts), max_size=8))
    return encoding, text, edits


@given(sessions())
@example((Encoding.UTF16, "a\r", [(2, 2, False, "\n")]))
@example((Encoding.UTF16, "a\r\nb", [(1, 1, False, "\r")]))
@example((Encoding.UTF8, "\x0c\u2028😀\r", [(3, 9, True, "\r\n")]))
def test_random_edits_agree_with_the_reference(session):
    encoding, text, edits = session
    document, reference = open_document(text, encoding), ReferenceBuffer(text, encoding.value)
    for version, (first, second, past_the_end, new) in enumerate(edits, start=2):
        snapshot = document.snapshot()
        offsets = sorted(number % (len(snapshot.text) + 1) for number in (first, second))
        start, end = (snapshot.position_from_offset(offset) for offset in offsets)
        if past_the_end:
            end = Position(end.line, end.character + 1000) if first % 2 else Position(end.line + 1000, first)
        document.apply([TextDocumentContentChangePartial(range=Range(start=start, end=end), text=new)], version)
        reference.replace((start.line, start.character), (end.line, end.character), new)
        assert document.snapshot().text == reference.text
        assert document.snapshot().version == version


# In bulk, against a reference that shares nothing with the server.

SESSIONS_PER_ENCODING, EDITS_PER_SESSION = 70, 100
FUZZ_PIECES = [*PIECES, "\U0001f1e9\U0001f1ea", "\u0301", "\ufeff", "\x1d", "\x1e", "x" * 9, "\n\n", "\r\r\n", "\n\r"]


def random_position(draw, buffer):
    """Mostly a place in the text, at times past the end of a line or of the document, or inside a character."""
    spans = buffer.line_spans()
    line = draw.randrange(len(spans) + (draw.random() < 0.1))
    begin, end = spans[line] if line < len(spans) else (0, 0)
    return line, draw.randrange(end - begin + 1) + (draw.random() < 0.15) * draw.randrange(1, 2000)


@pytest.mark.parametrize("encoding", list(Encoding))
@settings(max_examples=SESSIONS_PER_ENCODING, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_twenty_thousand_edits_leave_the_text_of_the_editor(encoding, seed):
    draw = random.Random(seed)

    def random_text(most):
        return "".join(draw.choice(FUZZ_PIECES) for _ in range(draw.randrange(most)))

    text = random_text(40)
    document, buffer = open_document(text, encoding), UnitBuffer(text, encoding.value)
    version = 1
    while version <= EDITS_PER_SESSION:
        changes = []
        for _ in range(draw.choice((1, 1, 1, 2, 3))):  # changes of one notification build on each other
            start, end = random_position(draw, buffer), random_position(draw, buffer)
            kind = draw.random()
            if kind < 0.5:
                end = start
            elif kind < 0.9:  # a few characters, perhaps over a line end or back
                end = max(0, start[0] + draw.choice((-1, 0, 0, 0, 1))), max(0, start[1] + draw.randrange(-3, 4))
            new = "" if len(buffer.units) > 600 else random_text(10)
            buffer.replace(start, end, new)
            changes.append(change(start, end, new))
            version += 1
        document.apply(changes, version)
        snapshot = document.snapshot()
        assert snapshot.text == buffer.text(), changes
        assert len(snapshot.lines) == len(buffer.line_spans())
    event(f"about {len(buffer.units) // 100 * 100} units at the end")
    probe = random_position(draw, buffer)
    at = buffer.offset(*probe)
    head = UnitBuffer("", encoding.value)
    head.units = buffer.units[:at]
    if encoding is not Encoding.UTF16 or not 0xD800 <= (buffer.units[at - 1 : at] or [0])[0] < 0xDC00:
        assert snapshot.text[: snapshot.offset_at(Position(*probe))] == head.text()


def test_the_bulk_is_as_large_as_it_says():
    assert SESSIONS_PER_ENCODING * EDITS_PER_SESSION * len(Encoding) >= 20_000


@given(texts, encodings)
def test_lines_are_a_partition_and_only_three_terminators_count(text, encoding):
    lines = split_lines(text)
    assert "".join(lines) == text
    assert len(lines) == len(re.findall(r"\r\n|\n|\r", text)) + 1
    snapshot = open_document(text, encoding).snapshot()
    assert snapshot.lines == tuple(lines)


@given(texts, encodings, st.integers(0, 200))
def test_offset_and_position_round_trip(text, encoding, number):
    snapshot = open_document(text, encoding).snapshot()
    offset = number % (len(text) + 1)
    position = snapshot.position_from_offset(offset)
    inside_terminator = text[offset - 1 : offset + 1] == "\r\n"
    assert snapshot.offset_at(position) == offset - inside_terminator
    assert snapshot.position_at(snapshot.point_at(position)) == position


def test_half_of_a_pair_can_be_removed_and_completed():
    document = open_document("x😀y")
    document.apply([change((0, 2), (0, 3), "")], 2)  # the low half alone
    assert document.snapshot().text == "x\ud83dy"
    assert without_lone_surrogates(document.snapshot().text) == "x\ufffdy"
    document.apply([change((0, 2), (0, 2), "\udc4d")], 3)
    assert document.snapshot().text == "x👍y"


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_position_inside_a_character_means_its_start(encoding):
    snapshot = open_document("a😀b", encoding).snapshot()
    size = {Encoding.UTF8: 4, Encoding.UTF16: 2, Encoding.UTF32: 1}[encoding]
    for character in range(1, 1 + size):
        assert snapshot.point_at(Position(0, character)) == Point(0, 1)
    assert snapshot.point_at(Position(0, 1 + size)) == Point(0, 2)


def test_changes_of_one_notification_build_on_each_other_and_a_range_may_be_reversed():
    document = open_document("one\ntwo\n")
    document.apply(
        [
            change((1, 3), (1, 0), "2"),
            change((1, 1), (1, 1), "nd"),
            change((9, 9), (9, 9), "end"),
        ],
        2,
    )
    assert document.snapshot().text == "one\n2nd\nend"
    document.apply([TextDocumentContentChangeWholeDocument(text="new")], 3)
    assert document.snapshot().text == "new"


def test_a_snapshot_does_not_change_with_its_document():
    document = open_document("one")
    before = document.snapshot()
    document.apply([change((0, 3), (0, 3), " two")], 2)
    assert (before.text, before.version) == ("one", 1)
    assert document.snapshot().text == "one two"


@pytest.mark.parametrize("line", ["x = 1  # some line of code of usual length\n", "x" * 50])
def test_a_key_stroke_in_five_megabytes_is_quick(line):
    """Many lines, and one line of 5 MB: far below the time between two key strokes either way."""
    document = open_document(line * (5_000_000 // len(line)))
    middle = len(document.snapshot().lines) // 2
    times = []
    for version in range(2, 22):
        start = time.perf_counter()
        document.apply([change((middle, 0), (middle, 0), "y")], version)
        document.snapshot()
        times.append(time.perf_counter() - start)
    assert sorted(times)[5] < 0.05, "a busy machine stops the test itself now and then"
