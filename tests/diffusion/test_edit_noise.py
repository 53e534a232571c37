"""Edit corruption stays within its budget, by the true Levenshtein distance, and uses all three operations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from diffusion_core.diffusion.edit_noise import corrupt_edit, edit_budget
from diffusion_core.diffusion.levenshtein import levenshtein
from diffusion_core.errors import ConfigError, InvalidRequest

PAD = 0


@given(
    seed=st.integers(0, 10**6),
    length=st.integers(1, 40),
    vocabulary=st.integers(2, 8),
    alpha=st.floats(0, 1),
    num_padded=st.integers(0, 5),
)
@settings(max_examples=200)
def test_true_distance_never_exceeds_the_budget(
    seed: int, length: int, vocabulary: int, alpha: float, num_padded: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # A small vocabulary makes repeats, where a wrong bound would show; some canvases end in pads of their own.
    x_0 = torch.randint(0, vocabulary, (8, length), generator=generator)
    x_0[:, length - min(num_padded, length) :] = PAD
    budget = edit_budget(length, torch.rand(8, generator=generator), max_alpha=alpha)
    found = corrupt_edit(x_0, budget, torch.arange(vocabulary), PAD, generator)
    assert found.x_t.shape == x_0.shape
    for row in range(8):
        distance = Levenshtein.distance(x_0[row].tolist(), found.x_t[row].tolist())
        assert distance <= int(found.distance_bound[row]) <= int(budget[row])
        assert int(found.num_edits[row]) <= int(budget[row])


def test_the_budget_is_used_up() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randint(1, 1000, (400, 50), generator=generator)
    found = corrupt_edit(x_0, torch.full((400,), 5), torch.arange(1, 1000), PAD, generator)
    assert (found.distance_bound == 5).all()
    distance = levenshtein(x_0, found.x_t).float()
    # With many different tokens hardly any edit undoes another one.
    assert distance.mean() > 4.5


def test_all_operations_occur() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.arange(1, 21).repeat(300, 1)
    x_t = corrupt_edit(x_0, torch.full((300,), 2), torch.arange(100, 200), PAD, generator).x_t
    deleted = (x_t[:, -1] == PAD) & (x_t < 100).all(-1)
    dropped = ~(x_t == 20).any(-1) & (x_t != PAD).all(-1)  # the last token was pushed over the end
    substituted = ((x_t != x_0).sum(-1) <= 2) & (x_t[:, -1] == 20) & (x_t > 99).any(-1)
    assert min(int(deleted.sum()), int(dropped.sum()), int(substituted.sum())) > 30


def test_budget_of_one_substitutes_only() -> None:
    # A deletion or an insertion alone costs two edits of a canvas that keeps its length.
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.arange(1, 21).repeat(100, 1)
    x_t = corrupt_edit(x_0, torch.ones(100, dtype=torch.long), torch.arange(1, 50), PAD, generator).x_t
    assert ((x_t != x_0).sum(-1) == 1).all()


def test_rows_that_may_not_be_edited_stay() -> None:
    x_0 = torch.arange(1, 21).repeat(6, 1)
    may_edit = torch.tensor([True, False] * 3)
    budget = torch.full((6,), 4)
    found = corrupt_edit(x_0, budget, torch.arange(50), PAD, torch.Generator().manual_seed(0), may_edit=may_edit)
    assert torch.equal((found.x_t != x_0).any(-1), may_edit)
    assert (found.num_edits[~may_edit] == 0).all()


def test_budget_is_the_floor_of_eq_4() -> None:
    t = torch.tensor([0.0, 0.09, 0.5, 1.0])
    assert edit_budget(20, t).tolist() == [0, 0, 1, 2]
    assert edit_budget(torch.tensor([10, 20, 30, 40]), t).tolist() == [0, 0, 1, 4]
    with pytest.raises(ConfigError, match="max_alpha is 2"):
        edit_budget(20, t, max_alpha=2)


def test_bad_input_is_refused() -> None:
    x_0 = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ConfigError, match="two different replacement tokens"):
        corrupt_edit(x_0, torch.tensor([1]), torch.tensor([7, 7]), PAD, torch.Generator())
    with pytest.raises(ConfigError, match="exceeds the canvas of 4"):
        corrupt_edit(x_0, torch.tensor([5]), torch.tensor([7, 8]), PAD, torch.Generator())


@given(a=st.lists(st.integers(0, 3), max_size=12), b=st.lists(st.integers(0, 3), max_size=12))
def test_levenshtein_equals_the_library(a: list[int], b: list[int]) -> None:
    found = levenshtein(torch.tensor(a, dtype=torch.long), torch.tensor(b, dtype=torch.long))
    assert int(found) == Levenshtein.distance(a, b)


def test_levenshtein_of_many_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 3, (4, 1, n), generator=generator) for n in (7, 9))
    table = levenshtein(a, b.transpose(0, 1))
    assert table.shape == (4, 4)
    for i in range(4):
        for j in range(4):
            assert int(table[i, j]) == Levenshtein.distance(a[i, 0].tolist(), b[j, 0].tolist())
    with pytest.raises(InvalidRequest, match="cannot be paired"):
        levenshtein(torch.zeros(2, 3), torch.zeros(4, 3))
