"""When an engine that keeps failing may be started again."""

from __future__ import annotations

from diffusion_core.net.backoff import Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_delays_double_from_half_a_second_to_half_a_minute() -> None:
    backoff = Backoff(Clock())
    assert backoff.wait_s == 0
    delays = []
    for _ in range(12):
        backoff.note_failure()
        delays.append(backoff.wait_s)
    assert delays == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


def test_a_lasting_failure_is_never_retried_at_once() -> None:
    backoff = Backoff(Clock())
    backoff.note_failure(is_lasting=True)
    assert backoff.wait_s == 0.5
    backoff.note_failure(is_lasting=True)
    assert backoff.wait_s == 1


def test_the_wait_passes() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    backoff.note_failure(is_lasting=True)
    clock.now += 0.4
    assert 0 < backoff.wait_s < 0.2
    clock.now += 0.2
    assert backoff.wait_s == 0


def test_a_healthy_minute_forgets_failures_and_a_shorter_time_does_not() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    for _ in range(5):
        backoff.note_failure()
    backoff.note_healthy()
    clock.now += 59
    backoff.note_healthy()  # said again: it counts from the first time
    backoff.note_failure()
    assert backoff.wait_s == 8
    backoff.note_healthy()
    clock.now += 60
    backoff.note_failure()
    assert backoff.wait_s == 0
