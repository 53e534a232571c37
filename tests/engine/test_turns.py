"""Who rides in a forward and who begins next: users take turns, places and memory are bounded, nobody waits in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.callers import OWNER, Caller
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.job import Job
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.turns import HALF_LIFE_S, Usage
from diffusion_core.engine.waiting import PlaceTimes, WaitingLine
from diffusion_core.errors import Closed, ConfigError, EngineError, Overloaded, RequestCancelled
from diffusion_core.requests import CompletionRequest, DecodingParams, EditRequest, Policy, WarmRequest

ONE_BY_ONE = DecodingParams(policy=Policy.AUTOREGRESSIVE, use_lookup=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def start(checkpoint: Path) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def run(**settings: object) -> Engine:
        config = EngineConfig(model=str(checkpoint), dtype="float32", max_context_tokens=2048, **settings)  # type: ignore[arg-type]
        made.append(Engine(config))
        made[-1].start()
        made[-1].submit(completion("warm")).future.result(timeout=30)
        return made[-1]

    yield run
    for engine in made:
        engine.close()


def user(name: str) -> Caller:
    return replace(OWNER, user=name, space=name)


def completion(prefix: str, max_tokens: int = 4, **changes: object) -> CompletionRequest:
    return CompletionRequest(prefix=prefix, max_tokens=max_tokens, stop_at_scope=False, **changes)  # type: ignore[arg-type]


def test_requests_share_forwards_and_their_texts_are_those_of_requests_alone(start: Callable[..., Engine]) -> None:
    engine = start()
    requests = [completion(f"def f{n}(a):\n" + "    x = 1\n" * (3 * n), 24) for n in range(8)]
    alone = [engine.submit(request).future.result(timeout=30).text for request in requests]
    before = engine.counters()
    jobs = [engine.submit(replace(request, id=f"r{n}"), caller=user(f"u{n}")) for n, request in enumerate(requests)]
    assert [job.future.result(timeout=30).text for job in jobs] == alone
    counters = engine.counters()
    assert sum(counters.batch_sizes[4:]) > sum(before.batch_sizes[4:]), "at least four shared a forward"
    assert sum(counters.batch_sizes) == counters.num_forwards
    assert counters.num_completed == before.num_completed + 8
    assert counters.num_active == counters.num_queued == counters.num_users == counters.active_cache_bytes == 0
    assert counters.num_prefilled_tokens > before.num_prefilled_tokens
    assert counters.num_answer_tokens == before.num_answer_tokens + 8 * 24
    assert counters.num_kept_caches > 0 < counters.kept_cache_bytes


def test_a_user_with_fifty_requests_does_not_delay_another_s_first(start: Callable[..., Engine]) -> None:
    """Counted in forwards, which do not depend on what else the machine does."""
    engine = start(max_queued=100)
    engine.submit(completion("other " * 40, 24, decoding=ONE_BY_ONE), caller=user("ben")).future.result(timeout=30)
    before = engine.counters().num_forwards
    engine.submit(completion("mine " * 40, 24, decoding=ONE_BY_ONE), caller=user("ben")).future.result(timeout=30)
    alone = engine.counters().num_forwards - before
    many = [engine.submit(completion(f"{n} " * 60, 60, decoding=ONE_BY_ONE), caller=user("ada")) for n in range(50)]
    while engine.counters().num_active < 8:
        time.sleep(0.001)
    before = engine.counters().num_forwards
    job = engine.submit(completion("new " * 40, 24, decoding=ONE_BY_ONE), caller=user("ben"))
    job.future.result(timeout=30)
    assert engine.counters().num_forwards - before <= 2 * alone
    assert sum(not each.future.done() for each in many) > 25, "the others were not done before it"


def test_a_user_has_no_more_places_than_allowed(start: Callable[..., Engine]) -> None:
    engine = start(max_active=3, max_active_per_user=2)
    jobs = [engine.submit(completion("x", 200, decoding=ONE_BY_ONE), caller=user("ada")) for _ in range(5)]
    seen = set()
    for _ in range(200):
        seen.add(engine.counters().num_active)
        time.sleep(0.0005)
    assert max(seen) == 2
    other = engine.submit(completion("y", 4), caller=user("ben"))
    other.future.result(timeout=30)
    assert not jobs[4].future.done()
    for job in jobs:
        engine.cancel(job)


def test_a_cancel_frees_the_place_for_who_waits(start: Callable[..., Engine]) -> None:
    engine = start(max_active=1)
    first = engine.submit(completion("x", 1000, decoding=ONE_BY_ONE))
    second = engine.submit(completion("y", 3))
    while first.num_forwards < 3:
        time.sleep(0.001)
    assert engine.counters().num_queued_completions == 1
    engine.cancel(first)
    with pytest.raises(RequestCancelled):
        first.future.result(timeout=10)
    assert second.future.result(timeout=10).num_tokens == 3
    assert engine.counters().num_cancelled == 1


def test_caches_beyond_the_bound_wait_and_one_always_goes(start: Callable[..., Engine]) -> None:
    engine = start(active_cache_bytes=1)
    jobs = [engine.submit(completion("abc " * 50, 30), caller=user(f"u{n}")) for n in range(4)]
    most = 0
    while not all(job.future.done() for job in jobs):
        most = max(most, engine.counters().num_active)
        time.sleep(0.001)
    assert most == 1
    assert all(job.future.result().num_tokens == 30 for job in jobs)


def test_warm_ups_count_and_end_first_where_an_answer_does_not_fit(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(active_cache_bytes=1)
    original, beside = engine._begin, []

    def begin(job: Job, model: LoadedModel) -> None:
        beside.append([other.is_warm_up for other in engine._active])
        original(job, model)

    monkeypatch.setattr(engine, "_begin", begin)
    warm_ups = [
        engine.submit(WarmRequest(completion=completion(f"{n} " * 900)), caller=user(f"u{n}")) for n in range(4)
    ]
    answer = engine.submit(completion("abc " * 50, 30), caller=user("v"))
    assert answer.future.result(timeout=30).num_tokens == 30
    for job in warm_ups:
        job.future.result(timeout=30)
    assert beside == [[]] * 5, "each of them was alone"


def test_a_full_line_says_when_to_come_again_and_makes_room_for_who_has_less(start: Callable[..., Engine]) -> None:
    engine = start(max_queued=6, max_active=1)
    jobs = [engine.submit(completion("x", 300, decoding=ONE_BY_ONE), caller=user("ada")) for _ in range(6)]
    with pytest.raises(Overloaded, match="6 requests are waiting") as refused:
        engine.submit(completion("x"), caller=user("ada"))
    assert refused.value.retry_after_s > 0
    late = engine.submit(completion("y", 2), caller=user("ben"))
    with pytest.raises(Overloaded, match="gave way") as gave_way:
        jobs[5].future.result(timeout=5)
    assert gave_way.value.retry_after_s > 0
    assert engine.counters().num_refused == 2
    engine.cancel(jobs[0])
    assert late.future.result(timeout=30).num_tokens == 2, "it begins before those of whom has more"
    assert not jobs[4].future.done()
    for job in jobs:
        engine.cancel(job)


def job_of(name: str, request: CompletionRequest | EditRequest | None = None, *, is_warm_up: bool = False) -> Job:
    job = Job(request or completion("x"), caller=user(name), is_warm_up=is_warm_up)
    job.loading.set_running_or_notify_cancel()
    job.loading.set_result(None)  # type: ignore[arg-type]
    return job


def line_of(*jobs: Job, times: PlaceTimes | None = None, **bounds: int) -> WaitingLine:
    settings = {"max_queued": 20, "max_active": 4, "max_active_per_user": 2} | bounds
    line = WaitingLine(times or PlaceTimes(), **settings)
    for job in jobs:
        line.add(job, ())
    return line


def test_who_has_fewer_places_begins_first_then_who_used_less_then_ghost_text() -> None:
    edit = EditRequest(selection="a\n", instruction="b")
    a1, a2, b1, c1 = job_of("a", edit), job_of("a"), job_of("b"), job_of("c")
    line = line_of(a1, a2, b1, c1)
    usage = {"a": 0.0, "b": 5.0, "c": 1.0}.__getitem__
    order, active = [], []
    while (job := line.next_to_begin(active, usage)) is not None:
        line.remove(job)
        active.append(job)
        order.append(job)
    assert order == [a2, c1, b1, a1]


def test_warm_ups_begin_when_nobody_waits_for_an_answer_one_at_a_time() -> None:
    answer, first, second = job_of("a"), job_of("a", is_warm_up=True), job_of("a", is_warm_up=True)
    line = line_of(first, second, answer)
    nothing: Callable[[str], float] = lambda _: 0.0  # noqa: E731
    assert line.next_to_begin([], nothing) is answer
    line.remove(answer)
    assert line.next_to_begin([answer], nothing) is first
    line.remove(first)
    assert line.next_to_begin([answer, first], nothing) is None


def test_a_deadline_that_is_certain_to_pass_is_refused_at_once() -> None:
    times = PlaceTimes()
    jobs = [job_of("a") for _ in range(10)]
    active = [job_of("a"), job_of("a")]
    line = line_of(*jobs, times=times)
    hurried = job_of("a", completion("x", deadline_ms=3000))
    line.add(hurried, active)
    line.remove(hurried)
    for _ in range(40):
        times.add(1.0)
    with pytest.raises(Overloaded, match="its deadline of 3000 ms would pass") as refused:
        line.add(hurried, active)
    assert refused.value.retry_after_s == pytest.approx((10 + 4) / 8)
    line.add(job_of("a", completion("x", deadline_ms=6000)), active)
    line.add(job_of("b", completion("x", deadline_ms=100)), active)


def test_usage_fades() -> None:
    now = [0.0]
    usage = Usage(clock=lambda: now[0])
    usage.charge("a", 100)
    now[0] = HALF_LIFE_S
    assert usage.of("a") == pytest.approx(50)
    assert usage.of("nobody") == 0


def test_counters_are_of_use_while_requests_come_from_many_threads(start: Callable[..., Engine]) -> None:
    engine = start(max_queued=200)
    before = engine.counters().num_completed

    def ask(name: str) -> None:
        for n in range(4):
            engine.submit(completion(f"{name}{n}", 4), caller=user(name)).future.result(timeout=60)
            if n == 2:
                engine.submit(WarmRequest(completion=completion(f"{name} next")), caller=user(name)).future.result(60)

    threads = [threading.Thread(target=ask, args=(f"u{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        counters = engine.counters()
        assert counters.num_active <= 16 + 6
        time.sleep(0.002)
    assert engine.counters().num_completed == before + 24


def test_a_fault_of_the_engine_is_answered_logged_without_text_and_survived(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start()

    def fail(*_: object) -> None:
        raise ValueError("my_secret")

    with monkeypatch.context() as patched:
        patched.setattr(engine._turns, "choose", fail)
        with pytest.raises(EngineError, match="ValueError"):
            engine.submit(completion("my_secret")).future.result(timeout=10)
    assert engine.submit(completion("x")).future.result(timeout=10).num_tokens == 4
    assert "ValueError" in caplog.text
    assert "my_secret" not in caplog.text
    assert engine.counters().num_failed == 1


@pytest.mark.parametrize("where", ["_begin_waiting", "_end_lost", "_has_work", "_wait_for_work"])
def test_a_fault_anywhere_in_the_thread_is_answered_and_survived(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    engine = start()
    original, faults = getattr(engine, where), [ValueError("once")]

    def fail_once() -> object:
        if faults and (engine._active or len(engine._line)):
            raise faults.pop()
        return original()

    with monkeypatch.context() as patched:
        patched.setattr(engine, where, fail_once)
        job = engine.submit(completion("abc", 64, decoding=ONE_BY_ONE))
        with pytest.raises(EngineError, match="ValueError"):
            job.future.result(timeout=10)
    assert engine.submit(completion("x")).future.result(timeout=10).num_tokens == 4
    assert engine.health().status == "ready"


def test_a_job_that_cannot_hand_back_its_cache_is_answered(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()

    def fail(*_: object) -> None:
        raise ValueError("full")

    with monkeypatch.context() as patched:
        patched.setattr(engine.loaded_models()[0].prefix_cache, "give", fail)
        with pytest.raises(EngineError, match="ValueError"):
            engine.submit(completion("abc")).future.result(timeout=10)
    assert engine.submit(completion("x")).future.result(timeout=10).num_tokens == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_leaves_nobody_waiting_and_shows_in_health(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start()

    def die() -> None:
        raise SystemExit

    monkeypatch.setattr(engine, "_begin_waiting", die)
    with pytest.raises(Closed):
        engine.submit(completion("abc")).future.result(timeout=10)
    engine._thread.join(10)
    assert engine.health().status == "failed"
    with pytest.raises(Closed):
        engine.submit(completion("abc"))


@pytest.mark.parametrize("name", ["max_active", "max_active_per_user"])
def test_bounds_must_leave_a_place(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**{name: 0})  # type: ignore[arg-type]
