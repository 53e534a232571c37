"""Requests that wait for a place: who begins next, how long the wait will be, and who is turned away.

A place is a sequence in the making, with keys and values of its own. Users with fewer places go first, then those who
used less of late; of one user's requests ghost text goes before edits, and the older before the newer. Times are
measured: how long answers held their places of late.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from statistics import quantiles

from diffusion_core.engine.job import Job
from diffusion_core.errors import Overloaded

# Answers whose times are remembered, and how many it takes to say that a deadline cannot be met.
_NUM_TIMES, _FEWEST_TIMES = 100, 20
_LEAST_RETRY_S = 0.1


class PlaceTimes:
    """How long answers held a place of late, in seconds. One thread writes, others may read."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_NUM_TIMES)

    def add(self, seconds: float) -> None:
        """A request held its place that long."""
        self._times.append(seconds)

    def typical(self) -> float:
        """The median; 0 while nothing is known."""
        return self._cut(4)

    def least(self) -> float:
        """What nine of ten exceed; 0 while too little is known to rely on it."""
        return self._cut(0) if len(self._times) >= _FEWEST_TIMES else 0.0

    def _cut(self, tenth: int) -> float:
        times = list(self._times)
        if len(times) < 2:
            return times[0] if times else 0.0
        return quantiles(times, n=10)[tenth]


class WaitingLine:
    """The line, bounded by ``max_queued`` requests that wait or are under way. Not thread-safe: guard it.

    At most ``max_active`` requests have a place, of one user at most ``max_active_per_user``. Of warm-ups one for each
    user and kind is under way beside them.
    """

    def __init__(self, times: PlaceTimes, *, max_queued: int, max_active: int, max_active_per_user: int) -> None:
        self._times, self._max_queued = times, max_queued
        self._max_active, self._max_per_user = max_active, min(max_active_per_user, max_active)
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All that wait, the oldest first."""
        return tuple(self._jobs)

    def add(self, job: Job, active: Sequence[Job]) -> Job | None:
        """Put ``job`` into the line. Where that is full, whoever has most in it gives way: that job is returned.

        Raises:
            Overloaded: the line is full and nobody has more in it than this user, or the deadline will have passed
                before the request can begin.
        """
        self._check_deadline(job, active)
        given_way = None
        if len(self._jobs) + len(active) >= self._max_queued:
            given_way = self._find_one_to_give_way(job)
            if given_way is None:
                raise self.overloaded(f"{self._max_queued} requests are waiting already: try again shortly")
            self._jobs.remove(given_way)
        self._jobs.append(job)
        return given_way

    def remove(self, job: Job) -> bool:
        """``job`` waits no longer; False: it did not."""
        if job not in self._jobs:
            return False
        self._jobs.remove(job)
        return True

    def clear(self) -> list[Job]:
        """Empty the line; those who were in it."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def overloaded(self, message: str) -> Overloaded:
        """The error for who is turned away, with when to come again: when half of those who wait now have ended."""
        rounds = (len(self._jobs) + self._max_active) / (2 * self._max_active)
        return Overloaded(message, retry_after_s=max(_LEAST_RETRY_S, round(rounds * self._times.typical(), 3)))

    def next_to_begin(self, active: Sequence[Job], usage: Callable[[str], float]) -> Job | None:
        """The job whose turn it is to begin, if there is a place for it. Its model is there, or failed to load."""
        if not self._jobs:  # as between most forwards
            return None
        ready = [job for job in self._jobs if job.loading.done()]
        places = _count_users(active)
        if sum(places.values()) < self._max_active:
            answers = [job for job in ready if not job.is_warm_up and places[job.caller.user] < self._max_per_user]
            if answers:
                used = {user: usage(user) for user in {job.caller.user for job in answers}}
                # Jobs stand in order of arrival, and `min` takes the first of equals.
                return min(answers, key=lambda job: _rank(job, places, used))
        if any(not job.is_warm_up for job in ready):
            return None
        under_way = {(job.caller.user, job.task) for job in active if job.is_warm_up}
        return next((job for job in ready if (job.caller.user, job.task) not in under_way), None)

    def _check_deadline(self, job: Job, active: Sequence[Job]) -> None:
        """Refuse what is certain to be late: by the least time that the user's own requests before it will take."""
        limit_ms = job.request.deadline_ms
        if not limit_ms or job.is_warm_up:
            return
        user = job.caller.user
        ahead = sum(
            other.caller.user == user and not other.is_warm_up and other.priority <= job.priority
            for other in self._jobs
        )
        free = self._max_per_user - _count_users(active)[user]
        # Those under way may end at once; each further round of places takes at least as long as short answers do.
        rounds = max(0, ahead - max(free, 0)) // self._max_per_user
        wait_ms = rounds * self._times.least() * 1000
        if wait_ms > limit_ms:
            raise self.overloaded(
                f"{ahead} of your requests wait before this one, which takes at least {wait_ms:.0f} ms: "
                f"its deadline of {limit_ms} ms would pass"
            )

    def _find_one_to_give_way(self, job: Job) -> Job | None:
        """The newest waiting job of the user who has most of them, if that is more than this one would have.

        Warm-ups are only a guess at what will be asked: the newest of them goes before any answer.
        """
        if not job.is_warm_up:
            for other in reversed(self._jobs):
                if other.is_warm_up:
                    return other
        counts = Counter(other.caller.user for other in self._jobs)
        if not counts:
            return None
        user, most = counts.most_common(1)[0]
        if most <= counts[job.caller.user] + 1:
            return None
        return next(other for other in reversed(self._jobs) if other.caller.user == user)


def _rank(job: Job, places: Counter[str], used: dict[str, float]) -> tuple[int, float, str, int]:
    user = job.caller.user
    return places[user], used[user], user, job.priority


def _count_users(jobs: Iterable[Job]) -> Counter[str]:
    return Counter(job.caller.user for job in jobs if not job.is_warm_up)
