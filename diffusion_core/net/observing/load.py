"""The load of the last ten minutes, in steps of two seconds, as the administrator's page draws it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from diffusion_core.net.observing.observation import NOT_FOUND, Observation
from diffusion_core.net.observing.tally import COUNTS, Tally

STEP_S = 2
NUM_STEPS = 300
WINDOW_S = 60
MAX_USERS = 200


@dataclass(eq=False)
class _Step:
    """Requests that ended in these two seconds, and the most that were under way."""

    number: int  # of steps since the epoch
    total: Tally = field(default_factory=Tally)
    by_user: dict[str, Tally] = field(default_factory=dict)
    active: int = 0
    queued: int = 0


class Load:
    """Fed by every request that ends and, now and then, with what is under way; bounded in steps and users."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._born = clock()
        self._steps: deque[_Step] = deque([_Step(self._number())])
        self._totals = Tally()
        self._reasons: Counter[str] = Counter()
        self._users: dict[str, Tally] = {}  # of the steps that are kept
        self._last_seen: dict[str, float] = {}

    def record(self, observation: Observation) -> None:
        """Count a request that ended; one that did not reach the engine only if it was refused."""
        if not observation.task and observation.code in {"", NOT_FOUND}:
            return
        step = self._advance()
        if observation.code:
            self._reasons[observation.code] += 1
        for tally in (self._totals, step.total):
            tally.add_request(observation)
        user = observation.user
        if user and (user in self._users or len(self._users) < MAX_USERS):
            self._last_seen[user] = self._clock()
            for tallies in (step.by_user, self._users):
                tallies.setdefault(user, Tally()).add_request(observation)

    def sample(self, num_active: int, num_queued: int) -> None:
        """Note what is under way now."""
        step = self._advance()
        step.active, step.queued = max(step.active, num_active), max(step.queued, num_queued)

    def summarise_window(self) -> dict[str, Any]:
        """The figures of the last minute."""
        first = self._advance().number - WINDOW_S // STEP_S
        window = Tally()
        for step in self._steps:
            if step.number > first:
                window.add(step.total)
        seconds = round(min(WINDOW_S, self._clock() - self._born), 1)
        return {"seconds": seconds, **window.report(seconds)}

    def report(self, under_way: Counter[str], user: str = "") -> dict[str, Any]:
        """Totals, the last minute, the history (of ``user`` only, if given) and the users, as net/docs/load.md says."""
        self._advance()
        now = self._clock()
        seconds = min(NUM_STEPS * STEP_S, now - self._born)
        users = [
            {
                "user": name, "active": under_way[name], "last_s": round(now - self._last_seen[name], 1),
                **tally.report(seconds),
            }
            for name, tally in self._users.items()
        ]  # fmt: skip
        return {
            "totals": {name: self._totals[name] for name in COUNTS},
            "window": self.summarise_window(),
            "reasons": dict(self._reasons),
            "history": self._history(user),
            "users": sorted(users, key=lambda each: -each["requests"]),
        }

    def _history(self, user: str) -> dict[str, Any]:
        ended = list(self._steps)[:-1]
        nothing = Tally()
        tallies = [step.by_user.get(user, nothing) if user else step.total for step in ended]
        reports = [tally.report(STEP_S) for tally in tallies]
        return {
            "step_s": STEP_S,
            "begin": float((ended[0] if ended else self._steps[0]).number * STEP_S),
            "requests": [each["requests"] for each in reports],
            "errors": [each["errors"] + each["rejected"] + each["deadlines"] for each in reports],
            **{name: [each[name] for each in reports] for name in ("p50_ms", "p95_ms", "tokens_per_s")},
            "active": [step.active for step in ended],
            "queued": [step.queued for step in ended],
        }

    def _number(self) -> int:
        return int(self._clock() // STEP_S)

    def _advance(self) -> _Step:
        """The step of now; those in between in which nothing happened are there as well, and the oldest go."""
        number = self._number()
        if number - self._steps[-1].number > NUM_STEPS:  # asleep for longer than is kept, or the clock was set
            self._forget(len(self._steps))
        while not self._steps or self._steps[-1].number < number:
            following = self._steps[-1].number + 1 if self._steps else max(number - NUM_STEPS, 0)
            self._steps.append(_Step(following))
        # The step under way is one more than those shown.
        self._forget(len(self._steps) - NUM_STEPS - 1)
        return self._steps[-1]

    def _forget(self, num_steps: int) -> None:
        for _ in range(num_steps):
            for user, tally in self._steps.popleft().by_user.items():
                self._users[user].remove(tally)
                if not self._users[user]["requests"]:
                    del self._users[user], self._last_seen[user]
