"""Limits of users: for any order of requests, nobody gets more than allowed, and nobody less."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.accounts.quotas import Kind, Quotas
from diffusion_core.callers import Caller, Limits, Scope
from diffusion_core.errors import RateLimited


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def caller(user: str = "alice", **limits: int) -> Caller:
    return Caller(user=user, space=user, scopes=frozenset(Scope), limits=Limits(**limits))


def is_admitted(quotas: Quotas, who: Caller, kind: Kind = Kind.REQUEST) -> bool:
    try:
        with quotas.admit(who, kind):
            return True
    except RateLimited:
        return False


@given(per_minute=st.integers(1, 300), pauses=st.lists(st.floats(0, 30), max_size=300))
@settings(max_examples=60, deadline=None)
def test_in_no_span_are_there_more_than_the_bucket_and_what_flows_in(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    quotas, who = Quotas(clock), caller(requests_per_minute=per_minute)
    admitted: list[float] = []
    for pause in pauses:
        clock.at += pause
        if is_admitted(quotas, who):
            admitted.append(clock.at)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            span = admitted[last] - admitted[first]
            assert last - first + 1 <= per_minute + span * per_minute / 60 + 1e-6


@given(per_minute=st.integers(1, 2000), used=st.integers(1, 5000), kind=st.sampled_from([Kind.REQUEST, Kind.WARM_UP]))
@settings(max_examples=100, deadline=None)
def test_who_waits_as_long_as_told_is_let_in(per_minute: int, used: int, kind: Kind) -> None:
    clock = Clock()
    quotas, who = Quotas(clock), caller(requests_per_minute=per_minute)
    for _ in range(used):
        try:
            with quotas.admit(who, kind):
                pass
        except RateLimited as refusal:
            assert 0 < refusal.retry_after_s <= 60
            clock.at += refusal.retry_after_s
            assert is_admitted(quotas, who, kind)
            return
    assert used <= per_minute if kind is Kind.REQUEST else used <= 4 * per_minute


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_a_place_is_free_when_its_request_ended_however(steps: list[tuple[bool, int]], at_once: int) -> None:
    quotas, who = Quotas(), caller(requests_at_once=at_once)
    held: list[ExitStack] = []
    for is_arrival, number in steps:
        if is_arrival:
            place = ExitStack()
            if len(held) < at_once:
                place.enter_context(quotas.admit(who, Kind.REQUEST))
                held.append(place)
            else:
                with pytest.raises(RateLimited, match="your limit"):
                    place.enter_context(quotas.admit(who, Kind.REQUEST))
        elif held:
            held.pop(number % len(held)).__exit__(KeyError, KeyError("lost"), None)


def test_a_fast_typist_is_never_refused_under_the_default_limits() -> None:
    from diffusion_core.config import ServerConfig
    from diffusion_core.net.auth import default_limits

    clock = Clock()
    limits = default_limits(ServerConfig())
    quotas, who = Quotas(clock), Caller(user="a", space="a", scopes=frozenset(Scope), limits=limits)
    for key in range(10 * 60 * 1000 // 70):  # ten minutes, a key every 70 ms: a request, and a warm-up at every third
        clock.at += 0.07
        assert is_admitted(quotas, who)
        assert key % 3 or is_admitted(quotas, who, Kind.WARM_UP)


def test_warm_ups_leave_the_last_quarter_and_the_places_to_requests() -> None:
    clock = Clock()
    quotas, who = Quotas(clock), caller(requests_per_minute=8, requests_at_once=1)
    while is_admitted(quotas, who, Kind.WARM_UP):
        pass
    assert [is_admitted(quotas, who) for _ in range(3)] == [True, True, False]
    clock.at += 60
    with quotas.admit(who, Kind.WARM_UP):
        assert not is_admitted(quotas, who, Kind.WARM_UP)
        assert is_admitted(quotas, who)


def test_users_do_not_take_from_each_other_and_free_requests_from_nobody() -> None:
    quotas = Quotas(Clock())
    alice, ben = caller("alice", requests_per_minute=1), caller("ben", requests_per_minute=1)
    assert [is_admitted(quotas, who) for who in (alice, alice, ben)] == [True, False, True]
    assert all(is_admitted(quotas, alice, Kind.FREE) for _ in range(10))
    assert all(is_admitted(quotas, caller("owner")) for _ in range(10_000))


def test_a_new_limit_holds_at_once() -> None:
    quotas = Quotas(Clock())
    assert [is_admitted(quotas, caller(requests_per_minute=1)) for _ in range(2)] == [True, False]
    quotas = Quotas(Clock())
    assert all(is_admitted(quotas, caller(requests_per_minute=100)) for _ in range(50))
    assert [is_admitted(quotas, caller(requests_per_minute=2)) for _ in range(2)] == [True, False]
