"""Who rides in the next forward: users take turns by what they have used, their requests by kind.

Usage is rows that were evaluated, fading with time. The user with the least leads: their rows always ride. Others ride
along within a bound that keeps the forward short for the leader, whoever has how many requests. One user's own many
requests share forwards that are short enough to be waited for. Warm-ups go when nobody waits for an answer, and now and
then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffusion_core.engine.job import Job
from diffusion_core.sampling.asking import RowsWanted
from diffusion_core.sampling.cost_model import CostModel

# Usage counts half after so many seconds: about what a few answers take.
HALF_LIFE_S = 10.0
# Rows in one forward of each user beside the one who leads.
COMPANION_ROWS = 8
# A user who has used less than this share of what any other one has leads by far: all that ride along may then make the
# forward at most so many times as long. Among equals whatever is evaluated in one go is best for all of them.
FAR_SHARE, FAR_COMPANY = 0.5, 1.25
# A user's many requests, and prompts where others wait, have as many rows of a forward as the largest of these that
# takes at most so many times as long as the shortest one: whoever comes meanwhile waits for it to end. The middle one
# until costs are measured.
PATIENT_ROWS, PATIENCE = (16, 32, 64), 2.0
# More rows of a prompt than this are a forward of their own where nobody decodes.
SHORT_PROMPT_ROWS = 32
# Rows of a prompt are not taken in fewer than these: their keys and values are reordered for every piece.
_FEWEST_PROMPT_ROWS = 8
# While answers are wanted a warm-up gets one forward in so many.
WARM_UP_EVERY = 16


@dataclass(slots=True)
class _Used:
    rows: float
    at: float


class Usage:
    """Rows by user, fading. Users who have used next to nothing are forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used: dict[str, _Used] = {}

    def of(self, user: str) -> float:
        """What the user has used of late, in rows."""
        used = self._used.get(user)
        return 0.0 if used is None else used.rows * 0.5 ** ((self._clock() - used.at) / HALF_LIFE_S)

    def charge(self, user: str, num_rows: int) -> None:
        """The user had ``num_rows`` rows in a forward."""
        self._used[user] = _Used(self.of(user) + num_rows, self._clock())
        if len(self._used) > 1024:
            self._used = {name: used for name, used in self._used.items() if self.of(name) >= 1.0}


Batch = list[tuple[Job, RowsWanted]]


class Turns:
    """Chooses the rows of every forward."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._number = 0

    def choose(self, ready: Sequence[Job]) -> Batch:
        """The jobs of the next forward and what of their wants is evaluated; charges their users for it."""
        self._number += 1
        batch = self._compose(self._without_warm_ups(ready))
        for job, want in batch:
            job.last_turn = self._number
            self._usage.charge(job.caller.user, len(want.tokens))
        return batch

    def _without_warm_ups(self, ready: Sequence[Job]) -> Sequence[Job]:
        warm_ups = [job for job in ready if job.is_warm_up]
        if not warm_ups or len(warm_ups) == len(ready):
            return ready
        if self._number % WARM_UP_EVERY == 0:
            return warm_ups
        return [job for job in ready if not job.is_warm_up]

    def _compose(self, ready: Sequence[Job]) -> Batch:
        if len(ready) == 1:
            return [(ready[0], rows_of(ready[0]))]
        users: dict[str, list[Job]] = {}
        for job in sorted(ready, key=lambda job: (job.priority, is_long_prompt(job), job.last_turn, job.arrived)):
            users.setdefault(job.caller.user, []).append(job)
        order = sorted(users, key=lambda user: (self._usage.of(user), users[user][0].arrived))
        leader = users[order[0]][0]
        want = rows_of(leader)
        company = [job for job in ready if job is not leader and _shares(rows_of(job), want)]
        if not want.can_share or not company:
            return [(leader, self._limit(leader))]
        if is_long_prompt(leader) and all(is_long_prompt(job) for job in company):
            return [(leader, self._limit(leader))]
        return self._fill(users, order, want)

    def _limit(self, leader: Job) -> RowsWanted:
        want = rows_of(leader)
        # Where rounds are not shared prompts stay whole.
        is_whole = not want.piece or not want.denoiser.can_share
        return want if is_whole else want.first(patient_rows(leader))

    def _fill(self, users: dict[str, list[Job]], order: Sequence[str], like: RowsWanted) -> Batch:
        """Rows of all users in turn, within each one's bound and that of the forward."""
        leader = users[order[0]][0]
        batch = _take(users[order[0]], like, patient_rows(leader), like.denoiser.most_shared_rows)
        most = self._most_rows(leader, order, _num_rows(batch))
        for user in order[1:]:
            room = most - _num_rows(batch)
            batch += _take(users[user], like, min(COMPANION_ROWS, room), room)
        return batch

    def _most_rows(self, leader: Job, order: Sequence[str], own: int) -> int:
        """How many rows a forward may have in which the leader's user has ``own``."""
        costs, most = _costs_of(leader), rows_of(leader).denoiser.most_shared_rows
        used = [self._usage.of(user) for user in order[:2]]
        if costs is None or len(used) < 2 or used[0] >= FAR_SHARE * used[1]:
            return most
        limit = FAR_COMPANY * costs.body[own]
        return next((rows for rows in range(most, own, -1) if costs.body[rows] <= limit), own)


def _take(jobs: Sequence[Job], like: RowsWanted, bound: int, room: int) -> Batch:
    """What of one user's jobs fits in ``bound`` rows. Their first round, which cannot be cut, only needs ``room``."""
    batch: Batch = []
    for job in jobs:
        want = rows_of(job)
        if not _shares(want, like):
            continue
        part = _fit(want, bound if batch or want.piece else room)
        if part is not None:
            batch.append((job, part))
            bound, room = bound - len(part.tokens), room - len(part.tokens)
    return batch


def _num_rows(batch: Batch) -> int:
    return sum(len(want.tokens) for _, want in batch)


def _fit(want: RowsWanted, room: int) -> RowsWanted | None:
    """What of a want fits in ``room`` rows; None: nothing that is worth it."""
    if len(want.tokens) <= room:
        return want
    if not want.piece or room < max(_FEWEST_PROMPT_ROWS, want.piece):
        return None
    return want.first(room)


def _shares(want: RowsWanted, other: RowsWanted) -> bool:
    return want.can_share and want.denoiser is other.denoiser


def rows_of(job: Job) -> RowsWanted:
    """What the job wants evaluated next."""
    assert isinstance(job.want, RowsWanted), "reading hidden states is done with the forward that made them"
    return job.want


def patient_rows(job: Job) -> int:
    """How many rows a forward may have that somebody could have to wait for; at least a piece of the job's prompt."""
    costs, piece = _costs_of(job), rows_of(job).piece
    least, middle, most = PATIENT_ROWS
    if costs is None:
        # A round that is one kernel takes about twice as long at its largest as at its smallest (EXPERIMENTS).
        return max(most if rows_of(job).denoiser.prefills_in_rounds else middle, piece)
    return max([least, piece, *(rows for rows in PATIENT_ROWS if costs.body[rows] <= PATIENCE * costs.body[2])])


def _costs_of(job: Job) -> CostModel | None:
    return job.model.rounds.costs if job.model is not None else None


def is_long_prompt(job: Job) -> bool:
    """Whether the job wants many rows of its prompt."""
    want = rows_of(job)
    return want.piece > 0 and len(want.tokens) > SHORT_PROMPT_ROWS


def fair_company(job: Job, active: Sequence[Job]) -> int:
    """With how many sequences of its size the rounds of ``job`` share a forward, as far as its user is concerned.

    Users have equal shares, so others' many requests count as one each, and one's own as many as they are. A power of
    two, so that plans last.
    """
    if job.model is None or not job.model.denoiser.can_share:
        return 1
    decoding = [o for o in active if o.model is job.model and not o.is_warm_up and not is_long_prompt(o)]
    users = {other.caller.user for other in decoding} | {job.caller.user}
    own = sum(other.caller.user == job.caller.user for other in decoding)
    num_sharing = max(own, 1) * len(users)
    return 1 if num_sharing <= 1 else 2 ** math.ceil(math.log2(num_sharing))
