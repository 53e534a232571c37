"""The statistics' file: many writers, a bounded size, damage; and the figures made of it."""

import asyncio
import contextlib
import sqlite3
import stat
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from helpers.lsp_client import ROOT
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol.types import Position, Range, TextDocumentContentChangePartial, TextDocumentContentChangeWholeDocument

from diffusion_core.requests import Timings
from lsp_server.positions import Encoding
from lsp_server.stats.latencies import bucket_of, duration_of, percentile
from lsp_server.stats.place import Place, share_kept, whole_change
from lsp_server.stats.recorder import Recorder
from lsp_server.stats.records import DROP, LATENCY, Count, Fate
from lsp_server.stats.report import make_report
from lsp_server.stats.store import Store, StoreError
from lsp_server.text_sync import Document

URI = "file:///a.py"


def fate(number, **changes):
    fields = {"id": f"{number:016x}", "time": time.time(), "language": "python", "model": "m"}
    return Fate(**(fields | {"num_chars": 10, "num_lines": 1} | changes))


def count(name="complete.prefill", kind=LATENCY, bucket=7, hours_ago=0):
    return Count(int(time.time() // 3600) - hours_ago, kind, name, bucket)


def test_what_is_written_can_be_read_and_replaced(tmp_path):
    store = Store(tmp_path / "deep" / "s.sqlite3")
    assert store.fates() == [] and store.counts() == Counter()
    first, second = fate(1, is_shown=None, kept_soon=0.5), fate(2, is_shown=True, is_accepted=True, num_accepted=10)
    store.write([first, second], {count(): 2})
    store.write([replace(first, is_shown=False, kept_late=0.25)], {count(): 3, count("why", DROP, 0): 1})
    changed = replace(first, is_shown=False, kept_late=0.25)
    assert {one.id: one for one in store.fates()} == {first.id: changed, second.id: second}
    assert store.counts() == {count(): 5, count("why", DROP, 0): 1}
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_old_and_surplus_rows_go_and_the_file_stops_growing(tmp_path):
    store = Store(tmp_path / "s.sqlite3", max_fates=100, kept_days=7)
    week = 7 * 86_400
    store.write([fate(1, time=time.time() - week - 1), fate(2)], {count(hours_ago=7 * 24 + 1): 1, count(): 1})
    assert [one.id for one in store.fates()] == [fate(2).id] and store.counts() == {count(): 1}
    sizes = []
    for batch in range(20):
        store.write([fate(1000 + 50 * batch + n, time=time.time() + n / 1e6) for n in range(50)], {})
        sizes.append(store.path.stat().st_size)
    kept = store.fates()
    assert len(kept) == 100 and kept[-1].id == fate(1000 + 20 * 50 - 1).id
    assert max(sizes[5:]) == sizes[5]


WRITER = """
import sys, time
from pathlib import Path
from lsp_server.stats.records import Count, Fate
from lsp_server.stats.store import Store
store, name = Store(Path(sys.argv[1])), sys.argv[2]
for n in range(60):
    fate = Fate(id=f"{name}-{n}", time=time.time(), language="python", model="m", num_chars=1, num_lines=1)
    store.write([fate], {Count(10**6, "drop", "x"): 1})
"""


def test_several_servers_write_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "s.sqlite3"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name], cwd=ROOT) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    store = Store(path)
    assert len({one.id for one in store.fates()}) == 180
    assert store.counts()[Count(10**6, "drop", "x")] == 180


@pytest.mark.parametrize("damage", ["garbage", "truncated", "other tables"])
def test_a_damaged_file_is_put_aside(tmp_path, damage):
    store = Store(tmp_path / "s.sqlite3")
    store.write([fate(n) for n in range(500)], {count(): 1})
    match damage:
        case "garbage":
            store.path.write_bytes(b"not a database at all, " * 100)
        case "truncated":
            store.path.write_bytes(store.path.read_bytes()[:5000])
        case _:
            with contextlib.closing(sqlite3.connect(store.path)) as connection:
                connection.execute("DROP TABLE fates")
                connection.commit()
    with pytest.raises(StoreError, match="Delete the file"):
        store.fates()
    store.write([fate(7)], {})
    assert [one.id for one in store.fates()] == [fate(7).id]
    assert store.path.with_suffix(".damaged").exists()


def test_a_newer_file_is_left_alone_and_an_unwritable_folder_is_said(tmp_path):
    store = Store(tmp_path / "s.sqlite3")
    store.write([fate(1)], {})
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = store.path.read_bytes()
    for use in (store.fates, lambda: store.write([fate(2)], {})):
        with pytest.raises(StoreError, match="newer version"):
            use()
    assert store.path.read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "file" / "s.sqlite3").write([fate(1)], {})


@given(st.lists(st.floats(0.05, 100_000), min_size=1, max_size=300), st.sampled_from([50, 95]))
def test_percentiles_out_of_buckets_are_close(values, percent):
    exact = sorted(values)[-(-len(values) * percent // 100) - 1]
    found = percentile(Counter(map(bucket_of, values)), percent)
    assert found == pytest.approx(exact, rel=0.026)


def test_buckets():
    assert percentile({}, 50) == 0.0
    assert duration_of(bucket_of(0.0)) == pytest.approx(0.01, rel=0.03)
    assert statistics.median([bucket_of(1)]) == 0


# Places

texts = st.text("ab\n😀", max_size=12)


@given(
    texts, texts, texts, st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 5), texts), max_size=6)
)
def test_a_place_follows_its_text_through_changes_outside(before, inserted, after, changes):
    """Changes before and behind it, at its very edges too, and the place still holds the very text."""
    document = Document(uri=URI, version=1, language="python", text=before + inserted + after, encoding=Encoding.UTF16)
    start = document.snapshot().position_from_offset(len(before))
    place = Place.of(start, inserted, Encoding.UTF16)
    head, tail = before, after
    for is_before, at, length, text in changes:
        if is_before:
            begin = min(at, len(head))
            end = min(begin + length, len(head))
            head, first = head[:begin] + text + head[end:], begin
        else:
            begin = min(at, len(tail))
            end = min(begin + length, len(tail))
            first = len(head) + len(inserted) + begin
            tail = tail[:begin] + text + tail[end:]
        snapshot = document.snapshot()
        span = Range(start=snapshot.position_from_offset(first), end=snapshot.position_from_offset(first + end - begin))
        change = TextDocumentContentChangePartial(range=span, text=text)
        place.apply(change, Encoding.UTF16)
        document.apply([change], document.version + 1)
    assert document.snapshot().text == head + inserted + tail
    if inserted:
        assert place.text_in(document.snapshot()) == inserted


@given(texts, texts)
def test_two_whole_texts_make_one_change(old, new):
    document = Document(uri=URI, version=1, language="python", text=old, encoding=Encoding.UTF16)
    before = document.snapshot()
    document.apply([TextDocumentContentChangeWholeDocument(text=new)], 2)
    change = whole_change(before, document.snapshot())
    again = Document(uri=URI, version=1, language="python", text=old, encoding=Encoding.UTF16)
    again.apply([change], 2)
    assert again.snapshot().text == new


@pytest.mark.parametrize(
    ("accepted", "present", "low", "high"),
    [
        ("return a + b", "return a + b", 1, 1),
        ("return a + b", "return alpha + b", 0.99, 1),
        ("return a + b", "return a", 0.6, 0.7),
        ("return a + b", "", 0, 0),
        ("return a + b", "raise ValueError", 0, 0.6),
        ("x = 1\n" * 3000, "x = 1\n" * 2700, 0.89, 0.91),
    ],
)
def test_the_share_that_was_kept(accepted, present, low, high):
    assert low <= share_kept(accepted, present) <= high


# The recorder


class Session:
    """As much of a session as the recorder knows: documents that change."""

    def __init__(self, tmp_path, **times):
        self.documents = {}
        self.store = Store(tmp_path / "s.sqlite3")
        self.recorder = Recorder(self.store, self.snapshot, **{"survival_s": (0.05, 0.25), "flush_s": 0.01, **times})
        self.recorder.set_enabled(True)

    def snapshot(self, uri):
        return self.documents[uri].snapshot() if uri in self.documents else None

    def open(self, text):
        self.documents[URI] = Document(uri=URI, version=1, language="python", text=text, encoding=Encoding.UTF16)

    def change(self, change):
        old = self.snapshot(URI)
        self.documents[URI].apply([change], old.version + 1)
        self.recorder.changed(URI, [change], old, self.snapshot(URI))

    def offer(self, name, text):
        self.recorder.offered(name, URI, text, language="python", model="m")

    async def close(self):
        await self.recorder.aclose()
        return self.store.fates()


def at(line, start, end, text):
    span = Range(start=Position(line=line, character=start), end=Position(line=line, character=end))
    return TextDocumentContentChangePartial(range=span, text=text)


async def test_an_accepted_text_is_looked_at_twice(tmp_path):
    session = Session(tmp_path)
    session.open("x = \n")
    session.offer("a", "alpha(beta) + 1")
    session.change(at(0, 4, 4, "alpha(beta) + 1"))
    session.recorder.accepted("a", Position(line=0, character=4), Encoding.UTF16)
    session.change(at(0, 0, 0, "# top\n"))
    session.change(at(1, 18, 19, "2"))  # a small edit inside
    await asyncio.sleep(0.12)
    session.change(TextDocumentContentChangeWholeDocument(text="# top\nx = 7\n"))
    await asyncio.sleep(0.25)
    (one,) = await session.close()
    assert one.is_accepted and one.num_accepted == 15 and one.is_shown
    assert one.kept_soon == pytest.approx(14 / 15) and one.kept_late < 0.2
    total = make_report(session.store, 0).total
    assert (total.num_known_soon, total.num_kept_soon, total.num_known_late, total.num_kept_late) == (1, 1, 1, 0)


async def test_a_document_that_is_closed_says_nothing(tmp_path):
    session = Session(tmp_path)
    session.open("x = 1")
    session.offer("a", "1")
    session.recorder.accepted("a", Position(line=0, character=4), Encoding.UTF16)
    assert session.recorder.watches(URI)
    session.recorder.closed(URI)
    assert not session.recorder.watches(URI)
    await asyncio.sleep(0.3)
    (one,) = await session.close()
    assert one.is_accepted and one.kept_soon is None and one.kept_late is None


async def test_what_remains_after_typing_along_is_the_same_suggestion(tmp_path):
    session = Session(tmp_path)
    for name, text in (("a", "alpha"), ("b", "lpha"), ("c", "pha"), ("d", "beta"), ("e", "pha")):
        session.offer(name, text)
    session.recorder.shown("c")
    session.recorder.partly_accepted("c", 1)
    session.recorder.partly_accepted("c", 2)
    session.recorder.partly_accepted("c", 2)
    session.recorder.dismissed("d")
    session.recorder.dismissed("never offered")
    first, second = sorted(await session.close(), key=lambda one: -one.num_chars)
    assert (first.num_chars, first.num_accepted, first.is_shown, first.is_accepted) == (5, 2, True, False)
    assert (second.num_chars, second.is_dismissed) == (4, True)


async def test_partial_lengths_count_utf16_units(tmp_path):
    session = Session(tmp_path)
    session.offer("a", "😀😀ab")
    session.recorder.partly_accepted("a", 4)
    session.recorder.partly_accepted("a", -1)
    session.recorder.partly_accepted("a", 10**9)
    (one,) = await session.close()
    assert one.num_accepted == 4


async def test_nothing_is_recorded_when_it_is_switched_off(tmp_path):
    session = Session(tmp_path)
    session.offer("a", "text")
    session.recorder.set_enabled(False)
    session.offer("b", "other")
    session.recorder.shown("a")
    session.recorder.dropped("x")
    session.recorder.answered("complete", Timings(total_ms=5), 6)
    assert await session.close() == []
    assert not session.store.path.exists()


async def test_a_file_that_cannot_be_written_disturbs_nobody(tmp_path, caplog):
    (tmp_path / "s.sqlite3").mkdir()
    session = Session(tmp_path)
    for _ in range(3):
        session.recorder.dropped("x")
        await asyncio.sleep(0.05)
    await session.recorder.aclose()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_memory_stays_bounded(tmp_path):
    session = Session(tmp_path, flush_s=3600)
    session.open("")
    for number in range(20_000):
        session.offer(f"{number}", f"{number:x}")
    assert len(session.recorder._offers) <= 256 and len(session.recorder._dirty) <= 10_000
