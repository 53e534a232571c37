"""Drafts that cost no model call: what they propose, and that they never break."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.draft_length import DraftLength
from diffusion_core.sampling.drafts import MAX_NGRAM, DraftSource, LookupDraft, best_draft, find_longest_suffix

TOKENS = st.lists(st.integers(0, 5), max_size=40)


def replay(source: DraftSource, answer: list[int], limit: int = 16) -> int:
    """Forwards that verified decoding of ``answer`` would need."""
    done = forwards = 0
    while done < len(answer):
        draft = source.propose(limit).tokens
        assert len(draft) <= limit
        agreed = 0
        while agreed < len(draft) and done + agreed < len(answer) and draft[agreed] == answer[done + agreed]:
            agreed += 1
        accepted = answer[done : done + agreed + 1]
        source.observe(accepted)
        done += len(accepted)
        forwards += 1
    return forwards


@given(TOKENS, TOKENS)
def test_any_answer_can_be_followed(text: list[int], answer: list[int]) -> None:
    assert replay(AlignedDraft(text), answer) <= max(len(answer), 0)
    assert replay(LookupDraft(text), answer) <= max(len(answer), 0)


def test_an_unchanged_text_is_drafted_whole() -> None:
    text = list(range(100, 148))
    assert replay(AlignedDraft(text), text) == 3


def test_a_replaced_an_inserted_and_a_deleted_token_cost_a_few_forwards() -> None:
    text = list(range(100, 180))
    answer = text.copy()
    answer[10] = 1
    answer.insert(30, 2)
    del answer[50]
    assert replay(AlignedDraft(text), answer, limit=64) <= 8


def test_a_replacement_is_made_again_where_the_same_neighbours_come() -> None:
    use = [1, 50, 2]  # a name between the same neighbours
    text = [t for i in range(12) for t in (100 + i, 200 + i, 300 + i, *use)]
    renamed = [60 if t == 50 else t for t in text]
    learned = AlignedDraft(text)
    forwards = replay(learned, renamed, limit=64)
    assert forwards <= 5, "one departure to learn from, then long drafts"


def test_lookup_takes_the_most_recent_longest_match() -> None:
    source = LookupDraft([9, 1, 2, 3, 40, 41, 8, 1, 2, 3, 50, 51])
    source.observe([1, 2, 3])
    assert source.propose(2).tokens == [50, 51]
    assert source.propose(8).support == 3
    assert LookupDraft([]).propose(4).tokens == []


@given(TOKENS, TOKENS)
def test_the_longest_end_is_found_wherever_it_occurs(text: list[int], tail: list[int]) -> None:
    places: dict[int, list[int]] = {0: []}
    for length in range(1, min(MAX_NGRAM, len(tail)) + 1):
        ends = [end for end in range(length, len(text) + 1) if text[end - length : end] == tail[-length:]]
        if ends:
            places[length] = ends
    found, matched = find_longest_suffix(np.array(text, dtype=np.int64), tail)
    assert (found.tolist(), matched) == (places[max(places)], max(places))


def test_the_best_supported_draft_wins_and_ties_go_to_the_first() -> None:
    lookup = LookupDraft([1, 2, 3, 4, 5, 6])
    lookup.observe([1, 2, 3])
    aligned = AlignedDraft([7, 7, 7])
    assert best_draft([aligned, lookup], 2).tokens == [7, 7]
    aligned.observe([9])
    assert best_draft([aligned, lookup], 2).tokens == [4, 5]
    assert best_draft([], 4).tokens == []


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(0, 64)), max_size=50))
def test_the_draft_length_stays_within_its_bounds(rounds: list[tuple[int, int]]) -> None:
    length = DraftLength(least=4, most=32)
    for drafted, accepted in rounds:
        length.observe(drafted, min(accepted, drafted))
        assert 4 <= length.value <= 32
