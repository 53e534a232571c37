"""Trajectories: the states through which a block was denoised, and how far each step carries (paper, 3.2-3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion_core.diffusion.levenshtein import levenshtein
from diffusion_core.errors import InvalidRequest

# Two equal states (a step that changed nothing) count as half an edit apart: worse than one edit, and finite.
MIN_DISTANCE = 0.5


@dataclass(frozen=True)
class Trajectory:
    """States of one block in the order of sampling, int64 [K + 1, L].

    The paper counts backwards: ``states[0]`` is tau[K], all masks (or a noisy draft), and ``states[-1]`` is tau[0],
    the result. K, written |tau|, is the number of denoising steps.
    """

    states: torch.Tensor
    mask_id: int

    def __post_init__(self) -> None:
        if self.states.dim() != 2 or len(self.states) < 1:
            raise InvalidRequest(f"states have shape {tuple(self.states.shape)}: [K + 1, L] was expected")
        if bool((self.states[-1] == self.mask_id).any()):
            raise InvalidRequest("the last state of a trajectory still holds masks: it is the finished block")

    @property
    def num_steps(self) -> int:
        """|tau|."""
        return len(self.states) - 1

    @property
    def final(self) -> torch.Tensor:
        """tau[0], the denoised block: int64 [L]."""
        return self.states[-1]

    def pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(x_i, x_0) for every state before the last (eq. 9): two int64 [K, L]."""
        noisy = self.states[:-1]
        return noisy, self.final.expand_as(noisy)

    def commit_steps(self) -> torch.Tensor:
        """The step, 1..K, after which each position holds its final token for good: int64 [L]; 0 if it always did.

        This is the order pi of eq. 7 with ties: positions that settled in the same step have the same number.
        """
        is_final = self.states == self.final
        # Read backwards, a position is settled as long as it has been final all the way.
        settled = is_final.flip(0).long().cumprod(0).sum(0)
        return len(self.states) - settled

    def length_surrogate(self) -> float:
        """E_{i,j} 1 / d_Lev(tau[i], tau[j]) over the pairs of different states (eq. 11); 0 for a single state."""
        return float(pairwise_inverse_distance(self.states.unsqueeze(0))[0].sum() / max(1, self._num_pairs))

    @property
    def _num_pairs(self) -> int:
        return self.num_steps * (self.num_steps + 1) // 2


def pairwise_inverse_distance(states: torch.Tensor, num_states: torch.Tensor | None = None) -> torch.Tensor:
    """1 / d_Lev of every state to each earlier one: float32 [N, S, S], lower triangle, for ``states`` [N, S, L].

    ``num_states`` [N] says how many of the S states of each trajectory are real; the others count 0.

    Differs:
        Equal states are taken to be :data:`MIN_DISTANCE` apart; eq. 11 would divide by 0.
    """
    num = states.shape[1]
    distance = levenshtein(states.unsqueeze(2), states.unsqueeze(1)).float().clamp_min(MIN_DISTANCE)
    is_pair = torch.ones(num, num, dtype=torch.bool, device=states.device).tril(-1).expand(len(states), -1, -1)
    if num_states is not None:
        is_real = torch.arange(num, device=states.device) < num_states.unsqueeze(-1)
        is_pair = is_pair & is_real.unsqueeze(-1)
    return torch.where(is_pair, 1 / distance, 0.0)


def surrogate_to_go(states: torch.Tensor, num_states: torch.Tensor) -> torch.Tensor:
    """What each step and those after it add to the surrogate of eq. 11: float32 [N, S - 1] for ``states`` [N, S, L].

    Entry k sums 1 / d_Lev over the pairs whose later state comes after step k. A decision can change only what lies
    behind it, hence the progressive form: the first steps answer for the whole length, the last only for the end.

    Differs:
        The sum over the pairs, not their mean. With the mean a step more adds pairs to the denominator: two steps of
        15 tokens and 1 would cost more than four steps of 4, and wandering far from where it was would pay.
    """
    by_later = pairwise_inverse_distance(states, num_states).sum(-1)[:, 1:]
    return by_later.flip(-1).cumsum(-1).flip(-1)
