"""Which round is chosen: by tables of costs as devices have them, and never against what they say."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from helpers.cost_tables import AMX, AVX2, FLAT, ROWS, SLOW, linear_table
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.cost_table import CostTable
from diffusion_core.sampling.costed_rounds import PROBE_EVERY, CostedRounds, RoundModel
from diffusion_core.sampling.draft_statistics import SLOTS
from diffusion_core.sampling.drafts import Draft
from diffusion_core.sampling.round_value import Terms, best_length
from diffusion_core.sampling.rounds import Round, RoundShape, Situation
from diffusion_core.sampling.slot_plan import plan_slots

GOOD_SLOTS = [0.9, 0.8, 0.7, 0.6]  # chance of each token, if those before were right
POOR_SLOTS = [0.1, 0.1, 0.1, 0.1]


def reach_of(chances: list[float]) -> list[float]:
    reach = [1.0]
    for chance in chances:
        reach.append(reach[-1] * chance)
    return reach + [0.0] * (64 - len(chances))


def situation(slots: list[int] | None = None, free: list[Draft] | None = None, **more: bool) -> Situation:
    return Situation(slots or [], free or [], num_pending=1, num_keys=256, **{"has_slots": False, **more})


def rounds_over(table: CostTable, block_size: int = 4) -> tuple[CostedRounds, RoundModel]:
    model = RoundModel(costs=CostModel(table))
    assert model.costs is not None
    return CostedRounds(model, model.costs, block_size=block_size), model


def play(table: CostTable, chances: list[float], num_rounds: int = 300) -> tuple[list[Round], RoundModel]:
    """Rounds with a drafter whose guesses are right by these chances, and nothing else at hand."""
    planner, model = rounds_over(table, len(chances))
    draw, slots, played = random.Random(3), list[int](), list[Round]()
    for _ in range(num_rounds):
        at = situation(slots, has_slots=True)
        chosen = planner.choose(at)
        # The text: 0 where the guess (all zeros) is right, 1 where it departs.
        right = 0
        while right < len(chances) and draw.random() < chances[right]:
            right += 1
        accepted = min(right, len(chosen.draft))
        text = [0] * accepted + [0 if right > accepted else 1]
        model.statistics.learn(slots, [], text)
        model.statistics.count_round(chosen.source, len(chosen.draft), len(text))
        planner.observe(at, chosen, text, None)
        slots = [0] * chosen.block_size if accepted in chosen.groups else []
        played.append(chosen)
    return played, model


def test_on_a_gpu_slots_ride_behind_every_length_in_whole_blocks() -> None:
    played, model = play(FLAT, GOOD_SLOTS)
    assert model.plan is not None
    assert (model.plan.block_size, model.plan.shape) == (4, RoundShape.ALL_LENGTHS)
    late = played[100:]
    assert sum(len(each.groups) == len(each.draft) + 1 for each in late) > 0.95 * len(late)
    assert model.statistics.num_tokens / model.statistics.num_rounds > 2.5


def test_where_every_row_costs_a_forward_nothing_is_drafted() -> None:
    played, model = play(SLOW, GOOD_SLOTS)
    assert model.plan is not None and model.plan.shape is None
    idle = [each for each in played[100:] if not each.groups and not each.draft]
    assert len(idle) > 0.9 * len(played[100:])


def test_a_drafter_that_is_mostly_wrong_is_left_alone_but_tried_now_and_then() -> None:
    played, model = play(AMX, POOR_SLOTS, num_rounds=5 * PROBE_EVERY)
    late = played[2 * PROBE_EVERY :]
    drafted = sum(bool(each.groups) for each in late)
    assert 1 <= drafted <= 0.1 * len(late)
    assert model.statistics.totals[SLOTS].tried[0] >= 5


def test_a_drafter_that_became_good_is_found_again() -> None:
    planner, model = rounds_over(AMX)
    for _ in range(200):
        model.statistics.learn([1, 1], [], [0])
    at = situation(has_slots=True)
    model.statistics.rounds_since_slots = 0
    assert not planner.choose(at).groups
    model.statistics.rounds_since_slots = PROBE_EVERY
    assert planner.choose(at).groups == (0,)
    # Not in the place of a draft that is worth a dozen forwards.
    sure = Draft(list(range(40)), 40.5, "selection")
    for _ in range(50):
        model.statistics.learn([], [sure], sure.tokens)
    assert len(planner.choose(situation(free=[sure], has_slots=True)).draft) > 10


@pytest.mark.parametrize("table", [FLAT, AMX, AVX2])
def test_a_sure_draft_is_verified_whole_and_a_vain_one_not_at_all(table: CostTable) -> None:
    planner, model = rounds_over(table)
    sure, vain = Draft(list(range(40)), 20.5, "selection"), Draft(list(range(40)), 1, "lookup")
    for _ in range(100):
        model.statistics.learn([], [sure], sure.tokens)
        model.statistics.learn([], [vain], [-1])
    assert planner.choose(situation(free=[sure, vain])).draft == sure.tokens
    assert planner.choose(situation(free=[sure])).source == "selection"
    chosen = planner.choose(situation(free=[vain]))
    assert len(chosen.draft) <= (MAX_DECODE_ROWS if table is FLAT else 1)


def test_a_draft_is_longer_where_rows_are_cheaper() -> None:
    lengths = []
    for row_ms in (0.0, 0.5, 2.0, 8.0, 40.0):
        planner, _ = rounds_over(linear_table(20.0, row_ms))
        lengths.append(len(planner.choose(situation(free=[Draft(list(range(60)), 8, "lookup")])).draft))
    assert lengths[0] == 60
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 3


CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(CHANCES, st.floats(0.001, 50), st.floats(0, 20), st.floats(1.0, 5.0), st.floats(0.001, 1))
def test_dearer_rows_never_make_a_draft_longer(
    chances: list[float], fixed: float, row_ms: float, factor: float, rate: float
) -> None:
    reach = reach_of(chances)
    cheap, dear = (CostModel(linear_table(fixed, ms)) for ms in (row_ms, row_ms * factor))
    assert best_length(Terms(dear, rate), reach, 64).length <= best_length(Terms(cheap, rate), reach, 64).length


@given(CHANCES, st.floats(0.001, 50), st.floats(0, 20), st.floats(0.001, 1), st.floats(0, 1))
def test_better_chances_never_make_a_draft_shorter(
    chances: list[float], fixed: float, row_ms: float, rate: float, better: float
) -> None:
    terms = Terms(CostModel(linear_table(fixed, row_ms)), rate)
    good = [1 - (1 - chance) * better for chance in chances]
    longer, shorter = best_length(terms, reach_of(good), 64), best_length(terms, reach_of(chances), 64)
    assert longer.length >= shorter.length
    assert longer.value >= shorter.value - 1e-9


@settings(deadline=None)
@given(st.lists(st.floats(0.02, 0.98), min_size=4, max_size=4), st.integers(0, 5), st.floats(0.1, 100))
def test_a_machine_that_is_slower_at_everything_chooses_alike(chances: list[float], seed: int, factor: float) -> None:
    draw = random.Random(seed)
    points = tuple((n, 5 + draw.random() * 20 + n * draw.random()) for n in ROWS)
    body = tuple((n, ms) for (n, _), ms in zip(points, sorted(ms for _, ms in points), strict=True))
    tables = [CostTable(body=tuple((n, scale * ms) for n, ms in body), head=((2, scale),)) for scale in (1.0, factor)]
    plans = [plan_slots(CostModel(table), reach_of(chances), (1, 2, 4)) for table in tables]
    assert plans[0].rate == pytest.approx(plans[1].rate * factor)


def fixed_rates(costs: CostModel, reach: list[float], size: int) -> dict[str, float]:
    """Tokens per millisecond of the fixed shapes, by their definitions."""
    body, head, slots = costs.body, costs.head, costs.slots
    gain = 1 + sum(reach[1 : size + 1])
    rates = {"autoregressive": 1 / (body[1] + head[1])}
    draft_ms = body[1 + size] + slots[size] + min(head[1 + size], head[1] + head[size])
    rates["two_pass"] = (1 + gain) / (draft_ms + body[1 + size] + head[1 + size])
    whole = reach[size]
    optimistic_ms = body[1 + 2 * size] + slots[size] + head[1 + size] + whole * head[size]
    # One drafting round begins a run of rounds that ends with the first that is not accepted whole.
    rounds = 1 / (1 - whole) if whole < 1 else 1e9
    rates["optimistic"] = (1 + rounds * gain) / (draft_ms + rounds * optimistic_ms)
    many = size * (size + 1)
    rates["all_lengths"] = gain / (body[1 + size + many] + slots[many] + head[1 + size] + head[size])
    return rates


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=4, max_size=4), st.sampled_from([FLAT, SLOW, AMX, AVX2]), st.integers(0, 1000)
)
def test_the_plan_is_at_least_as_fast_as_every_fixed_shape(chances: list[float], table: CostTable, seed: int) -> None:
    costs, reach = CostModel(table), reach_of(chances)
    for size in (1, 2, 4):
        plan = plan_slots(costs, reach, (size,))
        for name, rate in fixed_rates(costs, reach, size).items():
            assert plan.rate >= rate * (1 - 1e-9), name


@settings(deadline=None)
@given(st.lists(st.floats(0.05, 0.95), min_size=4, max_size=4))
def test_better_guesses_never_make_the_plan_slower(chances: list[float]) -> None:
    better = [(1 + chance) / 2 for chance in chances]
    for table in (FLAT, AMX, AVX2):
        costs = CostModel(table)
        plans = [plan_slots(costs, reach_of(each), (1, 2, 4)) for each in (chances, better)]
        assert all(worse.rate <= good.rate * (1 + 1e-9) for worse, good in pairwise(plans))


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_no_round_leaves_the_shape_in_which_rows_are_independent(seed: int) -> None:
    draw = random.Random(seed)
    planner, model = rounds_over(draw.choice([FLAT, AMX, SLOW]), draw.choice([1, 4, 16, 64]))
    for _ in range(6):
        slots = [0] * draw.randrange(0, 20)
        free = [Draft([draw.randrange(2)] * draw.randrange(1, 65), draw.randrange(1, 40), name) for name in "ab"]
        pending = draw.randrange(1, 30)
        at = Situation(slots, free[: draw.randrange(3)], pending, draw.randrange(5000), draw.random() < 0.7)
        chosen = planner.choose(at)
        assert pending + len(chosen.draft) + len(chosen.groups) * chosen.block_size <= MAX_DECODE_ROWS
        assert all(0 <= length <= len(chosen.draft) for length in chosen.groups)
        assert bool(chosen.groups) == bool(chosen.block_size)
        text = [0] * draw.randrange(1, len(chosen.draft) + 2)
        model.statistics.learn(slots, at.free, text)
        planner.observe(at, chosen, text, draw.random() * 100)


def test_a_draft_head_is_asked_where_it_pays() -> None:
    planner, model = rounds_over(replace(AMX, drafter=((4, 5.0), (16, 8.0))), 8)
    head = situation(has_head=True)
    for _ in range(100):
        model.statistics.learn([0] * 8, [], [0] * 8)
    assert planner.choose_head_draft(head) == 8
    assert model.head_block == 8
    for _ in range(1500):
        model.statistics.learn([0] * 8, [], [1])
    assert planner.choose_head_draft(head) == 0
    sure = Draft(list(range(60)), 40.5, "selection")
    for _ in range(400):
        model.statistics.learn([0] * 8, [], [0] * 8)
        model.statistics.learn([], [sure], sure.tokens)
    assert planner.choose_head_draft(situation(free=[sure], has_head=True)) == 0
