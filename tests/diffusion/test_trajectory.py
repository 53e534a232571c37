"""Trajectories: pairs, commit order, and the progressive surrogate of eq. 11."""

from __future__ import annotations

import pytest
import torch

from diffusion_core.diffusion.trajectory import Trajectory, pairwise_inverse_distance, surrogate_to_go
from diffusion_core.errors import InvalidRequest

M = 9


def trajectory(*rows: list[int]) -> Trajectory:
    return Trajectory(torch.tensor(rows), mask_id=M)


REMASKED = trajectory([M, M, M, M], [1, M, 3, M], [1, 2, M, M], [1, 2, 4, 5])


def test_pairs_end_in_the_result() -> None:
    noisy, final = REMASKED.pairs()
    assert REMASKED.num_steps == 3 and noisy.shape == final.shape == (3, 4)
    assert final.tolist() == [[1, 2, 4, 5]] * 3 and noisy[0].tolist() == [M] * 4


def test_commit_steps_count_the_last_change() -> None:
    assert REMASKED.commit_steps().tolist() == [1, 2, 3, 3]
    assert trajectory([7, M], [7, 2]).commit_steps().tolist() == [0, 1]


def test_surrogate_of_known_trajectories() -> None:
    # One step of four tokens: a single pair, four edits apart.
    assert trajectory([M] * 4, [1, 2, 3, 4]).length_surrogate() == pytest.approx(1 / 4)
    # Two steps of two tokens: pairs at distances 2, 2 and 4.
    two = trajectory([M] * 4, [1, 2, M, M], [1, 2, 3, 4])
    assert two.length_surrogate() == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)


def test_surrogate_rises_with_the_length() -> None:
    size, result = 16, torch.arange(16) + 100
    found = []
    for per_step in (16, 8, 4, 2, 1):
        states = [torch.where(torch.arange(size) < done, result, M) for done in range(0, size + 1, per_step)]
        found.append(Trajectory(torch.stack(states), M).length_surrogate())
    assert found == sorted(found) and found[-1] > 2 * found[0]


def test_a_step_that_changes_nothing_is_the_most_expensive() -> None:
    idle = trajectory([M, M], [M, M], [1, 2])
    moving = trajectory([M, M], [1, M], [1, 2])
    assert idle.length_surrogate() > moving.length_surrogate()


def test_cost_to_go_starts_with_all_pairs_and_only_falls() -> None:
    states = torch.stack((REMASKED.states, torch.tensor([[M] * 4, [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])))
    lengths = torch.tensor([4, 2])
    cost = surrogate_to_go(states, lengths)
    assert cost.shape == (2, 3)
    assert float(cost[0, 0]) == pytest.approx(6 * REMASKED.length_surrogate())  # the sum over six pairs
    assert float(cost[0, 2]) == pytest.approx(1 / 4 + 1 / 3 + 1 / 2)  # the last state against those before it
    assert float(cost[1, 0]) == pytest.approx(1 / 4)
    assert (cost.diff(dim=-1) <= 1e-7).all() and cost[1, 1:].tolist() == [0, 0]
    inverse = pairwise_inverse_distance(states, lengths)
    assert inverse.triu().count_nonzero() == 0 and inverse[1, 2:].count_nonzero() == 0


def test_fewer_steps_cost_less_however_uneven() -> None:
    def cost(*sizes: int) -> float:
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        states = torch.stack([torch.where(torch.arange(16) < end, torch.arange(16) + 100, M) for end in ends])
        return float(surrogate_to_go(states.unsqueeze(0), torch.tensor([len(ends)]))[0, 0])

    assert cost(16) < cost(8, 8) < cost(15, 1) < cost(4, 4, 4, 4)


def test_unfinished_or_misshapen_states_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="still holds masks"):
        trajectory([M, M], [1, M])
    with pytest.raises(InvalidRequest, match=r"K \+ 1, L"):
        Trajectory(torch.tensor([1, 2]), M)
