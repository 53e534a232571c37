"""How far drafts are accepted: chances that never rise with the length, learned from every text that followed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.sampling.draft_statistics import (
    MAX_OFFSETS,
    SLOTS,
    DraftKind,
    DraftStatistics,
    free_kind,
    slots_kind,
)
from diffusion_core.sampling.drafts import Draft

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=80)
ROUNDS = st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=8), TOKENS, TOKENS), max_size=40)


@given(ROUNDS)
def test_chances_are_chances_and_never_rise(rounds: list[tuple[list[int], list[int], list[int]]]) -> None:
    statistics = DraftStatistics()
    for slots, free, text in rounds:
        statistics.learn(slots, [Draft(free, 3, "lookup")], text)
    for kind in (DraftKind(SLOTS), DraftKind(SLOTS, 0, True), DraftKind("lookup", 3), DraftKind("lookup", 3, False)):
        reach = statistics.reach(kind)
        assert len(reach) == MAX_OFFSETS + 1
        assert reach[0] == 1
        assert all(1 >= shorter >= longer >= 0 for shorter, longer in pairwise(reach))


def test_before_anything_was_seen_more_evidence_promises_more() -> None:
    statistics = DraftStatistics()
    promised = [sum(statistics.reach(free_kind(Draft([1], n, "lookup"), ()))) for n in (1, 2, 4, 8, 16, 40)]
    assert all(less < more for less, more in pairwise(promised))
    alike, other = (statistics.reach(DraftKind(SLOTS, 0, agrees))[1] for agrees in (True, False))
    assert alike > other


def test_what_was_seen_outweighs_the_prior_and_is_forgotten_again() -> None:
    statistics = DraftStatistics()
    draft = Draft([1, 2, 3, 4], 3, "lookup")
    for _ in range(100):
        statistics.learn([], [draft], [1, 2, 9])
    reach = statistics.reach(free_kind(draft, ()))
    assert reach[1] > 0.95 and reach[2] > 0.95
    assert reach[3] < 0.1
    for _ in range(400):
        statistics.learn([], [draft], [7])
    assert statistics.reach(free_kind(draft, ()))[1] < 0.2


def test_a_text_that_ends_early_says_nothing_about_the_rest_of_a_draft() -> None:
    seen, unseen = DraftStatistics(), DraftStatistics()
    for _ in range(50):
        seen.learn([1, 2, 3, 4], [], [1, 2])
    at = [pair[1] / pair[0] for pair in pairwise(seen.reach(DraftKind(SLOTS)))]
    prior = [pair[1] / pair[0] for pair in pairwise(unseen.reach(DraftKind(SLOTS)))]
    assert at[0] > 0.9 and at[1] > 0.9
    assert at[2:] == pytest.approx(prior[2:])


def test_drafts_for_the_same_place_are_told_apart_by_whether_they_agree() -> None:
    lookup = Draft([5, 6], 2.5, "lookup")
    assert slots_kind([5], [lookup, Draft([7], 1, "selection")]).agrees is True
    assert slots_kind([8], [lookup]).agrees is False
    assert slots_kind([8], []) == slots_kind([], [lookup]) == DraftKind(SLOTS)
    assert (free_kind(lookup, [5]).agrees, free_kind(lookup, [6]).agrees, free_kind(lookup, []).agrees) == (
        True, False, None,
    )  # fmt: skip
    statistics = DraftStatistics()
    for _ in range(30):
        statistics.learn([5, 1], [lookup], [5, 6])
        statistics.learn([9, 1], [lookup], [5, 6])
    assert statistics.reach(DraftKind(SLOTS, agrees=True))[1] > 0.9
    assert statistics.reach(DraftKind(SLOTS, agrees=False))[1] < 0.2
    assert 0.4 < statistics.reach(DraftKind(SLOTS))[1] < 0.6  # of all


def test_totals_count_what_was_verified_and_what_was_right() -> None:
    statistics = DraftStatistics()
    statistics.learn([4, 5, 6], [Draft([4, 9], 1, "lookup")], [4, 5, 7])
    statistics.count_round(SLOTS, 3, 3)
    slots, lookup = statistics.totals[SLOTS], statistics.totals["lookup"]
    assert (slots.num_drafts, slots.num_drafted, slots.num_accepted) == (1, 3, 2)
    assert slots.rates == (1.0, 1.0, 0.0)
    assert (lookup.num_drafts, lookup.rates) == (0, (1.0, 0.0))
    statistics.learn([], [], [8])
    statistics.count_round("", 0, 1)
    assert (statistics.num_rounds, statistics.num_tokens, statistics.rounds_since_slots) == (2, 4, 1)
