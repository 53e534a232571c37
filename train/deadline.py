"""When a run has to stop: a time budget with a reserve for what must still be written, and signals. No torch."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from diffusion_core.errors import ConfigError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
SAVE_MARGIN = 1.5
STEP_MARGIN = 1.5
REPORT_SECONDS = 6.0


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``45s``, ``20m``, ``1h30m`` or ``2d``.

    Raises:
        ConfigError: it is none of these, or not above 0.
    """
    compact = text.strip().lower().replace(" ", "")
    if _DURATION.fullmatch(compact):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact))
    else:
        try:
            seconds = float(compact)
        except ValueError:
            raise ConfigError(f"{text!r} is no duration: for instance 90s, 20m, 1h30m") from None
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"the duration {text!r} must be above 0")
    return seconds


@dataclass
class Deadline:
    """How long a run may take, from ``start`` on, and what past saves, steps and evaluations have cost.

    ``seconds`` None means no limit. Costs are the largest of the last ones seen, so that one slow save is believed.
    """

    seconds: float | None = None
    start: float = field(default_factory=time.monotonic)
    save_cost: float = 0.0
    evaluate_cost: float = 0.0
    _step_costs: list[float] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds since ``start``."""
        return time.monotonic() - self.start

    @property
    def left(self) -> float:
        """Seconds until the limit; infinite without one."""
        return float("inf") if self.seconds is None else self.seconds - self.elapsed

    @property
    def used_share(self) -> float:
        """Part of the budget that is gone, 0 to 1; 0 without a limit. The reserve counts as gone."""
        if self.seconds is None:
            return 0.0
        usable = self.seconds - self.reserve
        return 1.0 if usable <= 0 else min(1.0, self.elapsed / usable)

    @property
    def reserve(self) -> float:
        """Seconds that must stay for the last save, the last evaluation and the report."""
        limit = self.seconds or 0.0
        return SAVE_MARGIN * self.save_cost + 1.2 * self.evaluate_cost + min(REPORT_SECONDS, 0.25 * limit)

    def note_step(self, seconds: float) -> None:
        """Remember what a step took."""
        self._step_costs = [*self._step_costs[-19:], seconds]

    def note_save(self, seconds: float) -> None:
        """Remember what a save took."""
        self.save_cost = max(seconds, self.save_cost * 0.5)

    def note_evaluation(self, seconds: float) -> None:
        """Remember what an evaluation took."""
        self.evaluate_cost = max(seconds, self.evaluate_cost * 0.5)

    def has_room_for_step(self) -> bool:
        """Whether another step and everything after it fits."""
        return self.left > self.reserve + STEP_MARGIN * max(self._step_costs, default=0.0)

    def has_room_for_evaluation(self) -> bool:
        """Whether an evaluation and the last save fit; an evaluation of unknown cost is tried."""
        return self.left > SAVE_MARGIN * self.save_cost + 1.2 * self.evaluate_cost


class OutOfTimeError(Exception):
    """Raised inside a step that would outlast the time budget; the step is given up."""


@contextmanager
def give_up_after(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTimeError` inside after ``seconds``; only in the main thread, and not on Windows."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer") or seconds == float("inf"):
        yield
        return

    def give_up(_number: int, _frame: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class StopRequest:
    """Set by SIGINT or SIGTERM: the run ends after the step in progress, with everything saved."""

    def __init__(self) -> None:
        self.name = ""

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """A request that the first SIGINT or SIGTERM sets; the second does what it always does.

    Outside the main thread no handler can be set; the request then stays unset.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def note(number: int, _frame: object) -> None:
        request.name = signal.Signals(number).name
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in numbers:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
