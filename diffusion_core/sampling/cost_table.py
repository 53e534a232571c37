"""What a forward costs by its rows: measured points, made monotone, read off between them (decoding.md section 2)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS

# A curve: (rows, milliseconds), rows ascending. Rows beyond the last point cost what its last piece says.
Points = tuple[tuple[int, float], ...]

MAX_POINTS = 64
MAX_KEYS = 2**31  # more than any context


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Milliseconds of the parts of a round. A curve without points is a part that this model does not have.

    ``body``: the layers, over ``num_keys`` committed positions, by rows. ``head``: the output head, by rows scored.
    ``slots``: what mask slots cost beyond clean rows (a gated adapter's deltas), by slots. ``drafter``: one draft of a
    draft head, by its tokens. ``key_ms``: a row more per committed position beyond ``num_keys``.
    ``has_own_head``: slots are read by a head of the drafter's, which ``slots`` includes.

    Raises:
        ValueError: a value is not a cost; the message names the field.
    """

    body: Points
    head: Points
    slots: Points = ()
    drafter: Points = ()
    key_ms: float = 0.0
    num_keys: int = 0
    has_own_head: bool = False

    def __post_init__(self) -> None:
        for name in ("body", "head", "slots", "drafter"):
            _check_points(name, getattr(self, name))
        if not self.body or not self.head:
            raise ValueError("body and head must have a point at least")
        if not _is_cost(self.key_ms) or not isinstance(self.num_keys, int) or not 0 <= self.num_keys <= MAX_KEYS:
            raise ValueError("key_ms and num_keys must be numbers from 0")
        if not isinstance(self.has_own_head, bool):
            raise ValueError("has_own_head must be true or false")

    def as_plain(self) -> dict[str, Any]:
        """The table as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Any) -> CostTable:
        """The table that :meth:`as_plain` gave.

        Raises:
            ValueError: it is something else.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(plain, dict) or plain.keys() != names:
            raise ValueError("not a table of costs")
        values = dict(plain)
        for name in ("body", "head", "slots", "drafter"):
            values[name] = _read_points(name, plain[name])
        return cls(**values)


def _is_cost(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _read_points(name: str, plain: Any) -> Points:
    if not isinstance(plain, list | tuple) or len(plain) > MAX_POINTS:
        raise ValueError(f"{name} is no list of points")
    if not all(isinstance(point, list | tuple) and len(point) == 2 for point in plain):
        raise ValueError(f"{name} holds something else than points")
    return tuple((point[0], point[1]) for point in plain)


def _check_points(name: str, points: Points) -> None:
    rows = [point[0] for point in points]
    if not all(type(n) is int and 0 < n <= 4096 for n in rows) or sorted(set(rows)) != rows:
        raise ValueError(f"{name}: rows must ascend from 1")
    if not all(_is_cost(ms) for _, ms in points):
        raise ValueError(f"{name}: milliseconds must be numbers from 0")


def fit_monotone(points: Sequence[tuple[int, float]]) -> Points:
    """The nearest curve that never falls: neighbours that fall are pooled to their mean (least squares)."""
    pools: list[tuple[float, list[int]]] = []
    for rows, ms in sorted(points):
        pools.append((ms, [rows]))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (first, before), (second, behind) = pools[-2], pools[-1]
            total = first * len(before) + second * len(behind)
            pools[-2:] = [(total / (len(before) + len(behind)), before + behind)]
    return tuple((rows, ms) for ms, pool in pools for rows in pool)


def read_curve(points: Points, most: int = MAX_DECODE_ROWS) -> list[float]:
    """Milliseconds of 0 to ``most`` rows. Nothing costs nothing; fewer rows than measured cost what the fewest cost."""
    if not points:
        return [0.0] * (most + 1)
    return [0.0, *(_read_point(points, rows) for rows in range(1, most + 1))]


def _read_point(points: Points, rows: int) -> float:
    if rows <= points[0][0] or len(points) == 1:
        return points[0][1]
    index = min(bisect_right(points, (rows, math.inf)), len(points) - 1)
    (left, low), (right, high) = points[index - 1], points[index]
    return low + (high - low) * (rows - left) / (right - left)
