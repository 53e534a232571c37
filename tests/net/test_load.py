"""The load of the last ten minutes: what counts, what is forgotten, and that it stays bounded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from diffusion_core.net.observing.load import MAX_USERS, NUM_STEPS, STEP_S, Load
from diffusion_core.net.observing.metrics import OTHERS, Names
from diffusion_core.net.observing.observation import Observation, Outcome
from diffusion_core.requests import FinishReason, Result, Timings


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def load(clock: Clock) -> Load:
    return Load(clock)


def answered(user: str = "anna", ms: float = 50.0, **fields: Any) -> Observation:
    observation = Observation(request_id="r", user=user, task="complete", status=200)
    result = Result(
        id="r", text="secret", finish_reason=FinishReason.STOP, num_tokens=6, num_forwards=2, num_reused_tokens=90,
        num_computed_tokens=10, timings=Timings(total_ms=ms), **fields,
    )  # fmt: skip
    observation.note_result("complete", 0, result)
    observation.end()
    return observation


def refused(code: str, user: str = "", status: int = 503) -> Observation:
    observation = Observation(request_id="r", user=user, status=status, code=code)
    observation.end()
    return observation


def test_texts_are_not_kept() -> None:
    observation = answered(notice="secret", alternatives=("secret",))
    assert "secret" not in repr(observation)


@pytest.mark.parametrize(
    ("status", "code", "was_cancelled", "outcome"),
    [
        (200, "", False, Outcome.OK),
        (0, "", False, Outcome.CANCELLED),
        (200, "", True, Outcome.CANCELLED),  # a stream that was left
        (429, "", False, Outcome.REJECTED),
        (200, "overloaded", False, Outcome.REJECTED),  # a stream's last message
        (504, "deadline_exceeded", True, Outcome.DEADLINE),
        (500, "", False, Outcome.ERROR),
        (507, "out_of_memory", False, Outcome.ERROR),
        (503, "closed", True, Outcome.REJECTED),
    ],
)
def test_how_a_request_ended(status: int, code: str, was_cancelled: bool, outcome: Outcome) -> None:
    observation = Observation(request_id="r", status=status, code=code, was_cancelled=was_cancelled)
    observation.end()
    assert observation.outcome is outcome


def test_a_partial_text_at_the_deadline_counts_as_one() -> None:
    observation = answered()
    (result,) = observation.results
    late = Observation(request_id="r", status=200)
    late.note_result("complete", 0, Result(id="r", text="a", finish_reason=FinishReason.DEADLINE))
    late.end()
    assert (result.finish_reason, observation.outcome) == (FinishReason.STOP, Outcome.OK)
    assert late.outcome is Outcome.DEADLINE


def test_figures_of_the_last_minute(load: Load, clock: Clock) -> None:
    clock.now += 30
    for ms in range(1, 101):
        load.record(answered(ms=float(ms)))
    load.record(refused("overloaded", "anna"))
    load.record(refused("unauthorized", status=401))
    window = load.report(Counter())["window"]
    assert (window["requests"], window["ok"], window["rejected"]) == (102, 100, 2)
    assert window["p50_ms"] == pytest.approx(50, rel=0.02)
    assert window["p95_ms"] == pytest.approx(95, rel=0.02)
    assert window["tokens_per_s"] == 600 / 30
    assert (window["tokens_per_forward"], window["cache_hit_rate"]) == (3.0, 0.9)
    clock.now += 61
    assert load.summarise_window()["requests"] == 0
    assert load.report(Counter())["totals"]["requests"] == 102


def test_what_is_older_than_ten_minutes_is_forgotten(load: Load, clock: Clock) -> None:
    load.record(answered("anna"))
    clock.now += 300
    load.record(answered("bert"))
    assert {user["user"] for user in load.report(Counter())["users"]} == {"anna", "bert"}
    clock.now += 302
    (user,) = load.report(Counter(bert=2))["users"]
    assert (user["user"], user["active"], user["requests"], user["last_s"]) == ("bert", 2, 1, 302)
    clock.now += 10_000
    report = load.report(Counter())
    assert report["users"] == []
    assert len(report["history"]["requests"]) == NUM_STEPS
    assert sum(report["history"]["requests"]) == 0
    assert report["totals"]["requests"] == 2


def test_the_history_is_of_everybody_or_of_one(load: Load, clock: Clock) -> None:
    load.record(answered("anna"))
    load.sample(num_active=3, num_queued=1)
    load.sample(num_active=1, num_queued=0)
    clock.now += 2 * STEP_S
    load.record(answered("bert"))
    clock.now += STEP_S
    history = load.report(Counter())["history"]
    assert history["begin"] == 1_000_000 // STEP_S * STEP_S
    assert history["requests"] == [1, 0, 1]
    assert (history["active"], history["queued"]) == ([3, 0, 0], [1, 0, 0])
    assert history["p50_ms"][1] is None
    assert load.report(Counter(), "bert")["history"]["requests"] == [0, 0, 1]
    assert load.report(Counter(), "nobody")["history"]["requests"] == [0, 0, 0]


def test_users_and_names_are_bounded(load: Load) -> None:
    for number in range(MAX_USERS + 50):
        load.record(answered(f"user-{number}"))
    report = load.report(Counter())
    assert len(report["users"]) == MAX_USERS
    assert report["totals"]["requests"] == MAX_USERS + 50
    names = Names(2)
    assert [names(name) for name in ("a", "b", "c", "a", "")] == ["a", "b", OTHERS, "a", ""]
    assert Names(0)("a") == ""


def test_no_such_route_is_no_load(load: Load) -> None:
    load.record(refused("not_found", status=404))
    assert load.report(Counter())["totals"]["requests"] == 0
