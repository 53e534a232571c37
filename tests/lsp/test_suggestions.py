"""Reuse of answers while the user types along."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import Overloaded
from diffusion_core.requests import FinishReason, Result
from lsp_server.debounce import Debounce
from lsp_server.gate import Refusal, refuse
from lsp_server.in_flight import InFlight, Superseded
from lsp_server.positions import Encoding
from lsp_server.settings import CompletionSettings, DebounceSettings, LanguageSettings, Settings
from lsp_server.snapshot import Point
from lsp_server.suggestions import Query, SuggestionStore, typed_since
from lsp_server.text_sync import Document


def query(prefix, suffix="", **fields):
    return Query(
        **{"uri": "u", "language": "python", "model": "m", "single_line": False, **fields}, prefix=prefix, suffix=suffix
    )


@given(st.text("ab(\n", max_size=20), st.text("ab()\n", min_size=1, max_size=20), st.data())
def test_advancing_in_steps_is_advancing_at_once(prefix, answer, data):
    store = SuggestionStore()
    store.add(query(prefix), answer)
    count = data.draw(st.integers(0, len(answer) - 1))
    for step in range(count + 1):
        advance = store.advance(query(prefix + answer[:step]))
        assert advance is not None
        assert answer.endswith(advance.text)
    advance = store.advance(query(prefix + answer[:count]))
    assert advance is not None and prefix + answer[:count] + advance.text == prefix + answer


def test_text_that_disagrees_or_other_surroundings_find_nothing():
    store = SuggestionStore()
    store.add(query("x = ", "\nend"), "1 + 2")
    assert store.advance(query("x = 2", "\nend")) is None
    assert store.advance(query("x = ", "\nother")) is None
    assert store.advance(query("y = ", "\nend")) is None
    assert store.advance(query("x = ", "\nend", uri="v")) is None
    assert store.advance(query("x = ", "\nend", language="lua")) is None
    assert store.advance(query("x = ", "\nend", model="n")) is None
    assert store.advance(query("x = 1 + 2", "\nend")) is None  # typed to its end: the engine must go on


def test_closers_that_the_editor_adds_and_that_are_typed_over():
    store = SuggestionStore()
    store.add(query("x = ", "\n"), "f(a)\nreturn")
    found = store.advance(query("x = f(", ")\n"))
    assert found is not None and found.text == "a)\nreturn"
    found = store.advance(query("x = f(a)", "\n"))
    assert found is not None and found.text == "\nreturn"
    assert store.advance(query("x = f", ")\n")) is None  # nothing was opened
    store.add(query("y = f(", ")\n"), "a)\nreturn")
    found = store.advance(query("y = f(a)", "\n"))  # the closer was typed over
    assert found is not None and found.text == "\nreturn"


def test_an_empty_answer_saves_asking_again_at_the_same_place_only():
    store = SuggestionStore()
    store.add(query("x"), "")
    found = store.advance(query("x"))
    assert found is not None and found.text == ""
    assert store.advance(query("xy")) is None


def test_the_oldest_answers_are_dropped():
    store = SuggestionStore(capacity=3)
    for number in range(5):
        store.add(query(f"line {number} "), "x")
    assert len(store) == 3
    assert store.advance(query("line 1 ")) is None
    assert store.advance(query("line 4 ")) is not None


def test_only_the_end_of_a_long_prefix_counts_so_a_moved_window_still_finds_it():
    store = SuggestionStore()
    long = "".join(f"line {number}\n" for number in range(1000))
    store.add(query(long), "answer")
    assert store.advance(query(long[500:] + "ans")) is not None


def test_the_last_answer_is_a_draft_for_a_text_that_departs_from_it():
    store = SuggestionStore()
    store.add(query("x = "), "first + second")
    assert store.draft_for(query("x = fa")) == "rst + second"
    assert store.draft_for(query("unrelated")) == ""


@given(st.text("ab\n", max_size=10), st.text("ab\n", max_size=10))
def test_typed_since_finds_what_was_typed(prefix, typed):
    assert typed_since(query("start\n" + prefix), query("start\n" + prefix + typed), 20) is not None
    assert typed_since(query("start\n" + prefix + "c"), query("start\n" + prefix), 20) is None


# In flight


def result(text):
    return Result(id="1", text=text, finish_reason=FinishReason.STOP)


async def test_a_cancelled_waiter_leaves_work_that_a_newer_request_joins():
    in_flight = InFlight(grace_s=0.2)

    async def work():
        await asyncio.sleep(0.05)
        return result("answer")

    run = in_flight.start(query("a"), work)
    waiter = asyncio.create_task(in_flight.wait(run))
    await asyncio.sleep(0.01)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    joined = in_flight.joinable(query("ab"))
    assert joined is run
    assert (await in_flight.wait(joined)).text == "answer"


async def test_work_that_nobody_joins_ends_after_the_grace():
    in_flight = InFlight(grace_s=0.03)
    run = in_flight.start(query("a"), lambda: asyncio.sleep(10, result("")))
    waiter = asyncio.create_task(in_flight.wait(run))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.sleep(0.01)
    assert not run.task.done()
    await asyncio.sleep(0.05)
    assert run.task.cancelled()
    assert in_flight.joinable(query("a")) is None


async def test_a_request_that_cannot_join_cancels_at_once_and_its_waiter_learns_why():
    in_flight = InFlight()
    first = in_flight.start(query("a"), lambda: asyncio.sleep(10, result("")))
    waiter = asyncio.create_task(in_flight.wait(first))
    await asyncio.sleep(0)
    assert in_flight.joinable(query("other")) is None
    in_flight.start(query("other"), lambda: asyncio.sleep(0, result("x")))
    with pytest.raises(Superseded):
        await waiter


async def test_an_error_reaches_all_waiters():
    in_flight = InFlight()

    async def fail():
        await asyncio.sleep(0.01)
        raise Overloaded("full")

    run = in_flight.start(query("a"), fail)
    outcomes = await asyncio.gather(in_flight.wait(run), in_flight.wait(run), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Overloaded, Overloaded]


def test_only_the_newest_turn_may_start():
    in_flight = InFlight()
    old = in_flight.take_turn()
    in_flight.check_turn(old)
    in_flight.take_turn()
    with pytest.raises(Superseded):
        in_flight.check_turn(old)


# Gate and debounce


def refusal(marked, settings=None, invoked=False):
    text = marked.replace("|", "", 1)
    before = marked.split("|", 1)[0]
    document = Document(uri="u", version=1, language="python", text=text, encoding=Encoding.UTF16)
    point = Point(before.count("\n"), len(before.rsplit("\n", 1)[-1]))
    return refuse(settings or Settings(), document.snapshot(), point, invoked=invoked)


def test_the_gate():
    assert refusal("x = |") is None
    assert refusal("f(|)") is None
    assert refusal("fo|o") is Refusal.INSIDE_WORD
    assert refusal("x = | + 12345678") is Refusal.TEXT_RIGHT
    assert refusal("f(|, b)])};") is None
    assert refusal("|") is Refusal.NOTHING_TO_GO_BY
    for marked in ("fo|o", "x = | + 12345678", "|"):
        assert refusal(marked, invoked=True) is None
    off = Settings(completion=CompletionSettings(enabled=False))
    assert refusal("x = |", off, invoked=True) is Refusal.DISABLED
    for languages in (LanguageSettings(disabled=("python",)), LanguageSettings(enabled=("lua",))):
        assert refusal("x = |", Settings(languages=languages)) is Refusal.LANGUAGE_OFF


@given(st.lists(st.floats(0, 5000), max_size=30), st.lists(st.floats(0, 10_000), max_size=30))
def test_the_debounce_stays_within_its_bounds(intervals, latencies):
    debounce, now = Debounce(), 0.0
    for interval in intervals:
        debounce.note_key(now := now + interval)
    for latency in latencies:
        debounce.note_latency(latency)
    assert 30 <= debounce.delay_ms(DebounceSettings()) <= 80


def test_fast_typing_at_a_slow_engine_waits_longest():
    def delay(interval_ms, latency_ms):
        debounce = Debounce()
        for number in range(30):
            debounce.note_key(number * interval_ms)
            debounce.note_latency(latency_ms)
        return debounce.delay_ms(DebounceSettings())

    assert delay(100, 1000) == pytest.approx(80, abs=1)
    assert delay(1000, 1000) == pytest.approx(30, abs=1)
    assert delay(100, 40) < 40
    assert Debounce().delay_ms(replace(DebounceSettings(), min=0, max=0)) == 0
