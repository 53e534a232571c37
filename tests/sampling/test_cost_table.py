"""What rounds cost: a monotone curve through the measurements, and corrections by the rounds' own times."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from helpers.cost_tables import AMX, AVX2, FLAT, random_table
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.sampling.cost_model import CostModel, RoundSize
from diffusion_core.sampling.cost_table import CostTable, fit_monotone, read_curve

POINTS = st.dictionaries(st.integers(1, 200), st.floats(0, 1e6), min_size=1, max_size=12)


@given(POINTS)
def test_a_fit_never_falls_and_stays_among_what_was_measured(measured: dict[int, float]) -> None:
    fitted = fit_monotone(list(measured.items()))
    assert [rows for rows, _ in fitted] == sorted(measured)
    assert all(earlier <= later + 1e-6 for (_, earlier), (_, later) in pairwise(fitted))
    assert all(min(measured.values()) - 1e-6 <= ms <= max(measured.values()) + 1e-6 for _, ms in fitted)


@given(POINTS)
def test_what_does_not_fall_is_left_as_it_is(measured: dict[int, float]) -> None:
    rising = list(zip(sorted(measured), sorted(measured.values()), strict=True))
    assert fit_monotone(rising) == tuple(rising)
    curve = read_curve(tuple(rising))
    assert curve[0] == 0
    assert all(a <= b + 1e-6 * max(1.0, b) for a, b in pairwise(curve))
    for rows, ms in rising:
        if rows <= MAX_DECODE_ROWS:
            assert curve[rows] == pytest.approx(ms)


def test_a_falling_pair_is_pooled() -> None:
    assert fit_monotone([(2, 10.0), (4, 8.0), (8, 20.0)]) == ((2, 9.0), (4, 9.0), (8, 20.0))


@given(st.integers(0, 10_000))
def test_a_table_survives_json(seed: int) -> None:
    table = random_table(random.Random(seed))
    assert CostTable.from_plain(json.loads(json.dumps(table.as_plain()))) == table


@pytest.mark.parametrize(
    "damage",
    [
        {"body": []}, {"body": [[2, -1.0]]}, {"body": [[2, float("nan")]]}, {"body": [[4, 1.0], [2, 1.0]]},
        {"body": [[2]]}, {"body": "abc"}, {"body": [["2", 1.0]]}, {"body": [[True, 1.0]]}, {"head": None},
        {"key_ms": "fast"}, {"num_keys": 1.5}, {"more": 1}, {"body": [[2, 1.0]] * 100},
    ],
)  # fmt: skip
def test_a_damaged_table_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        CostTable.from_plain(AMX.as_plain() | damage)
    for other in (None, [], "table", 3):
        with pytest.raises(ValueError, match="not a table"):
            CostTable.from_plain(other)


def test_more_of_anything_costs_no_less() -> None:
    for table in (AMX, AVX2, FLAT):
        costs = CostModel(table)
        base = RoundSize(clean=3, slots=4, scored=(3,), num_keys=300)
        for more in (
            RoundSize(9, 4, (3,), 300), RoundSize(3, 12, (3,), 300), RoundSize(3, 4, (3, 4), 300),
            RoundSize(3, 4, (9,), 300), RoundSize(3, 4, (3,), 3000),
        ):  # fmt: skip
            assert costs.expect(more) >= costs.expect(base)


def sizes(*rows: int) -> list[RoundSize]:
    return [RoundSize(clean=n, slots=0, scored=(n,), num_keys=256) for n in rows]


def test_a_machine_that_is_busy_changes_the_pace_and_no_curve() -> None:
    costs = CostModel(AMX)
    before = list(costs.body)
    for number in range(60):
        size = sizes(2, 4, 8, 16, 32)[number % 5]
        costs.observe(size, 3.1 * costs.expect(size))
    assert costs.pace == pytest.approx(3.1)
    assert costs.body == pytest.approx(before)


@pytest.mark.parametrize("pace", [1.0, 4.0])
def test_rows_that_cost_more_than_measured_are_found_out(pace: float) -> None:
    costs = CostModel(AMX)
    first = CostModel(AMX)
    for number in range(80):
        size = sizes(2, 2, 4, 16)[number % 4]
        factor = 1.6 if size.clean == 16 else 1.0
        costs.observe(size, pace * factor * first.expect(size))
    assert 1.4 < costs.body[16] / first.body[16] <= 2
    assert costs.body[2] == pytest.approx(first.body[2], rel=0.1)
    assert all(earlier <= later for earlier, later in pairwise(costs.body))


def test_slots_that_cost_more_than_measured_are_found_out() -> None:
    costs, first = CostModel(AMX), CostModel(AMX)
    for number in range(80):
        size = RoundSize(1, 4 * (number % 2), (1,), 256)
        costs.observe(size, first.expect(size) + (8 if size.slots else 0))
    assert costs.slots[4] == pytest.approx(2 * first.slots[4], rel=0.2)


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 60), st.floats(-1, 1e9)), max_size=80))
def test_no_times_at_all_make_a_curve_fall_or_leave_its_bounds(seen: list[tuple[int, int, float]]) -> None:
    costs = CostModel(AMX)
    for clean, slots, ms in seen:
        costs.observe(RoundSize(clean, slots, (clean,), 256), ms)
    first = CostModel(AMX)
    assert all(earlier <= later for earlier, later in pairwise(costs.body))
    assert all(0.5 * a <= b <= 2 * first.body[-1] for a, b in zip(first.body, costs.body, strict=True))
