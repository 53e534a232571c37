"""Choosing tokens: what is banned is never chosen, by the short way and by the long one alike."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.requests import SamplingParams
from diffusion_core.sampling.departures import DepartureRecorder
from diffusion_core.sampling.logits import TokenChooser


@given(st.integers(0, 10**6), st.lists(st.integers(0, 8), max_size=6))
def test_the_short_way_chooses_as_the_masked_scores_do(seed: int, banned: list[int]) -> None:
    """Scores of few values: ties and banned bests are the rule."""
    logits = torch.randint(0, 4, (4, 9), generator=torch.Generator().manual_seed(seed)).float()
    plain, noting = TokenChooser(SamplingParams(), banned), TokenChooser(SamplingParams(), banned, DepartureRecorder())
    assert plain.is_plain and not noting.is_plain
    expected = plain.allow(logits).argmax(-1).tolist()
    assert plain.choose(logits, range(4)) == noting.choose(logits, range(4)) == expected
    assert not set(expected) & set(banned)
