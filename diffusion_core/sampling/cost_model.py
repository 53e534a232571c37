"""What a round will cost: the measured table, kept up to date by the times of the rounds themselves.

How fast the machine is at the moment concerns all rounds alike and is no reason to choose another one; what counts is
how the rounds compare. So each round's time is divided by what was expected, the running median of these ratios is the
machine's present pace, and only what a number of rows deviates from that pace corrects its cost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from statistics import median

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.sampling.cost_table import CostTable, read_curve

# Rounds are grouped by rows, up to these numbers.
_BUCKETS = (2, 4, 8, 16, 32, 64, MAX_DECODE_ROWS)
_MOST_PACE = 31
_MOST_OF_A_BUCKET = 15
# So many rounds are needed to believe that a number of rows costs otherwise than measured.
_FEWEST = 5
_LEAST_CORRECTION, _MOST_CORRECTION = 0.5, 2.0
# Smaller changes of a correction are noise, and not worth computing the curves anew.
_TOLERANCE = 0.03


@dataclass(frozen=True, slots=True)
class RoundSize:
    """What a round evaluates: clean rows, mask slots, rows scored (in as many calls of the head), over so many keys."""

    clean: int
    slots: int
    scored: tuple[int, ...]
    num_keys: int


class RoundCosts:
    """Milliseconds by rows, as plain lists for quick reading: ``body``, ``head``, ``slots`` and ``drafter``."""

    table: CostTable
    body: list[float]
    head: list[float]
    slots: list[float]
    drafter: list[float]

    def row_ms(self, num_keys: int) -> float:
        """What every row costs more because ``num_keys`` positions are committed."""
        return self.table.key_ms * max(0, num_keys - self.table.num_keys)

    def expect(self, size: RoundSize) -> float:
        """Milliseconds of a round at the pace of the measurement."""
        rows = size.clean + size.slots
        head = sum(self.head[min(n, MAX_DECODE_ROWS)] for n in size.scored)
        at = min(rows, MAX_DECODE_ROWS)
        return self.body[at] + self.slots[min(size.slots, MAX_DECODE_ROWS)] + head + rows * self.row_ms(size.num_keys)


class SharedCosts(RoundCosts):
    """A sequence's share of forwards that ``company`` sequences share, each with as many rows.

    So a row costs what it adds where the others' rows are, and tokens by milliseconds of one sequence are those of all
    by the time of the whole forward: what is best for one is then best for all of them together.
    """

    def __init__(self, costs: CostModel, company: int) -> None:
        self.table, self.drafter = costs.table, costs.drafter
        self.body, self.head, self.slots = (
            [_read_beyond(curve, rows * company) / company for rows in range(MAX_DECODE_ROWS + 1)]
            for curve in (costs.body, costs.head, costs.slots)
        )


def _read_beyond(curve: list[float], rows: int) -> float:
    """A point of a curve; beyond its end rows cost what the last third of them does."""
    if rows <= MAX_DECODE_ROWS:
        return curve[rows]
    before = MAX_DECODE_ROWS * 2 // 3
    slope = (curve[MAX_DECODE_ROWS] - curve[before]) / (MAX_DECODE_ROWS - before)
    return curve[MAX_DECODE_ROWS] + slope * (rows - MAX_DECODE_ROWS)


class CostModel(RoundCosts):
    """The measured table, corrected by the rounds themselves."""

    def __init__(self, table: CostTable) -> None:
        self.table = table
        self._shared: dict[int, SharedCosts] = {}
        self.drafter = read_curve(table.drafter)
        self._body, self._slots = read_curve(table.body), read_curve(table.slots)
        self.head = read_curve(table.head)
        self.body, self.slots = self._body, self._slots
        self._pace: deque[float] = deque(maxlen=_MOST_PACE)
        self._ratios = [deque[float](maxlen=_MOST_OF_A_BUCKET) for _ in _BUCKETS]
        self._slot_ratios: deque[float] = deque(maxlen=_MOST_OF_A_BUCKET)
        self._corrections = [1.0] * len(_BUCKETS)
        self._slot_correction = 1.0

    def shared_by(self, company: int) -> RoundCosts:
        """The costs of one sequence where ``company`` share their forwards."""
        if company <= 1:
            return self
        if company not in self._shared:
            self._shared[company] = SharedCosts(self, company)
        return self._shared[company]

    @property
    def pace(self) -> float:
        """How much longer rounds take at present than when the table was measured."""
        return median(self._pace) if self._pace else 1.0

    def observe(self, size: RoundSize, ms: float) -> None:
        """A round took ``ms`` milliseconds."""
        expected = self.expect(size)
        if expected <= 0 or ms <= 0:
            return
        self._pace.append(ms / expected)
        if len(self._pace) < _FEWEST:
            return
        surplus = ms / self.pace - expected
        rows = min(size.clean + size.slots, MAX_DECODE_ROWS)
        part = self.slots[min(size.slots, MAX_DECODE_ROWS)]
        if part:
            self._slot_ratios.append(self._slot_correction * (part + surplus) / part)
            self._correct_slots(_settle(self._slot_correction, self._slot_ratios))
        elif body := self.body[rows]:
            bucket = bisect_left(_BUCKETS, rows)
            self._ratios[bucket].append(self._corrections[bucket] * (body + surplus) / body)
            self._correct_body(bucket, _settle(self._corrections[bucket], self._ratios[bucket]))

    def _correct_slots(self, correction: float) -> None:
        """Take over what has changed enough."""
        if correction == self._slot_correction:
            return
        self._slot_correction = correction
        self._shared.clear()
        self.slots = [ms * correction for ms in self._slots]

    def _correct_body(self, bucket: int, correction: float) -> None:
        """As :meth:`_correct_slots`, of the layers for one bucket of rows."""
        corrections = self._corrections
        if correction == corrections[bucket]:
            return
        corrections[bucket] = correction
        self._shared.clear()
        self.body, most = [0.0], 0.0
        for rows in range(1, MAX_DECODE_ROWS + 1):
            most = max(most, self._body[rows] * corrections[bisect_left(_BUCKETS, rows)])
            self.body.append(most)


def _settle(old: float, seen: deque[float]) -> float:
    """The correction by what was seen of late; the old one while that says too little."""
    if len(seen) < _FEWEST:
        return old
    new = min(max(median(seen), _LEAST_CORRECTION), _MOST_CORRECTION)
    return new if abs(new - old) > _TOLERANCE * old else old
