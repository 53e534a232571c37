"""Rounds by rule: where slots ride, and that they fill the size which a round has anyway."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.sampling.acceptance import Acceptance
from diffusion_core.sampling.drafts import Draft
from diffusion_core.sampling.fixed_rounds import FixedRounds
from diffusion_core.sampling.rounds import Round, RoundShape, Situation

SIZES = (16, 32, 64)


def choose(num_draft: int, *, sizes: tuple[int, ...] = SIZES, block: int = 4, pending: int = 1) -> Round:
    """What is chosen for a free draft that is sure to be taken."""
    planner = FixedRounds(Acceptance(), shape=RoundShape.ALL_LENGTHS, block_size=block)
    free = [Draft(list(range(num_draft)), support=8, source="lookup")]
    situation = Situation(
        slots=[], free=free, num_pending=pending, num_keys=100, has_slots=True, max_rows=64, sizes=sizes
    )
    return planner.choose(situation)


def num_rows(chosen: Round, pending: int = 1) -> int:
    return pending + len(chosen.draft) + len(chosen.groups) * chosen.block_size


def test_slots_ride_behind_every_length_where_each_row_counts() -> None:
    assert choose(8, sizes=()).groups == tuple(range(9))
    assert choose(20, sizes=()).groups == (*range(9), 20), "as many as fit"


def test_a_draft_of_a_block_has_slots_behind_every_length() -> None:
    assert choose(4).groups == tuple(range(5))
    assert choose(3, block=3).groups == tuple(range(4))
    assert num_rows(choose(3, block=3)) == 16


def test_a_longer_draft_does_not_make_the_round_a_size_larger_for_its_slots() -> None:
    assert choose(8).groups == (0, 1, 2, 3, 8)
    assert choose(16).groups == (0, 1, 16)
    assert choose(27).groups == (27,)
    assert choose(28).groups == (*range(7), 28), "the next size, all of it"


def test_one_size_is_filled() -> None:
    assert choose(8, sizes=(64,)).groups == tuple(range(9))
    assert choose(20, sizes=(64,)).groups == choose(20, sizes=()).groups


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 3), st.sampled_from([SIZES, (32, 64), (64,), ()]))
def test_rounds_stay_within_their_size(num_draft: int, block: int, pending: int, sizes: tuple[int, ...]) -> None:
    chosen = choose(num_draft, sizes=sizes, block=block, pending=pending)
    rows, anyway = num_rows(chosen, pending), max(pending + num_draft + block, (block + 1) ** 2)
    assert rows <= 64
    assert rows <= next((size for size in sizes if size >= anyway), 64)
    assert len(chosen.draft) == num_draft
    assert all(a < b for a, b in pairwise(chosen.groups))
    if pending + num_draft + block <= 64:
        assert chosen.groups[-1] == num_draft, "the likeliest length is among them"
