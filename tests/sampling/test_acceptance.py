"""Which draft is tried: by how far drafts of its kind were accepted so far."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.sampling.acceptance import Acceptance, DraftKind, count_agreeing, kinds_of
from diffusion_core.sampling.drafts import NO_DRAFT, Draft


def test_before_anything_was_seen_more_support_and_agreement_promise_more() -> None:
    acceptance = Acceptance()
    slots, weak, strong = DraftKind(0, False), DraftKind(1, False), DraftKind(6, False)
    assert acceptance.expect(weak) < acceptance.expect(slots) < acceptance.expect(strong)
    assert acceptance.expect(DraftKind(1, True)) > acceptance.expect(weak)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=200))
def test_the_mean_stays_among_what_was_seen_and_expected(seen: list[int]) -> None:
    acceptance, kind = Acceptance(), DraftKind(3, False)
    for number in seen:
        acceptance.observe(kind, number)
    assert min(*seen, kind.prior) <= acceptance.expect(kind) <= max(*seen, kind.prior)


def test_what_was_seen_outweighs_the_prior_and_follows_a_change() -> None:
    acceptance, kind = Acceptance(), DraftKind(6, False)
    for _ in range(60):
        acceptance.observe(kind, 0)
    assert acceptance.expect(kind) < acceptance.expect(DraftKind(0, False))
    for _ in range(150):
        acceptance.observe(kind, 8)
    assert acceptance.expect(kind) > 7


def test_kinds_of_two_drafts_for_one_place() -> None:
    assert kinds_of([5, 6], Draft([5, 9], 2.5)) == (DraftKind(0, True), DraftKind(2, True))
    assert kinds_of([5, 6], Draft([7], 11)) == (DraftKind(0, False), DraftKind(8, False))
    assert kinds_of([], NO_DRAFT) == (DraftKind(0, False), DraftKind(1, False))


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_agreeing_tokens_are_a_common_beginning(a: list[int], b: list[int]) -> None:
    count = count_agreeing(a, b)
    assert a[:count] == b[:count]
    assert count in (len(a), len(b)) or a[count] != b[count]
