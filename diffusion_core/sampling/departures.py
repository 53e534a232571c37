"""Where an answer could most probably have gone another way: the source of its alternatives.

While an answer is decoded, the runners-up at every position are written down. An alternative is the answer up to a
position, the runner-up there, and then whatever the model goes on with. Its rank is the probability of that departure:
the product of the probabilities of all tokens up to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

NUM_RUNNERS_UP = 3
# A runner-up this many times less probable than the token it would replace is no alternative but noise.
MAX_ODDS = 1000.0


@dataclass(frozen=True, slots=True)
class Departure:
    """The answer's first ``num_kept`` tokens, then ``token``; ``log_probability`` of all of them together."""

    num_kept: int
    token: int
    log_probability: float


@dataclass(frozen=True, slots=True)
class _Choice:
    token: int
    log_probability: float
    runners_up: tuple[tuple[int, float], ...]


class DepartureRecorder:
    """Writes down choices by position. A later one at the same position replaces an earlier one.

    Verification looks at rows behind a draft that turns out wrong; the token that is committed at a position is always
    the last one that was chosen for it.
    """

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}

    def note(self, logits: torch.Tensor, positions: Sequence[int], chosen: Sequence[int]) -> None:
        """Rows ``logits`` [R, V] without temperature, what they speak of, and what was chosen."""
        log_total = logits.logsumexp(-1, keepdim=True)
        best, tokens = (logits - log_total).topk(min(NUM_RUNNERS_UP + 1, logits.shape[-1]), dim=-1)
        own = logits.gather(-1, torch.tensor(chosen, device=logits.device).unsqueeze(-1)) - log_total
        rows = zip(positions, chosen, own.squeeze(-1).tolist(), tokens.tolist(), best.tolist(), strict=True)
        for position, token, log_probability, others, scores in rows:
            runners_up = tuple(
                (other, score) for other, score in zip(others, scores, strict=True)
                if other != token and math.isfinite(score)
            )[:NUM_RUNNERS_UP]  # fmt: skip
            self._choices[position] = _Choice(token, log_probability, runners_up)

    def ranked(self, first_position: int, answer: Sequence[int]) -> list[Departure]:
        """Departures from ``answer``, whose first token stands at ``first_position``; the most probable first."""
        found: list[Departure] = []
        so_far = 0.0
        for index, token in enumerate(answer):
            choice = self._choices.get(first_position + index)
            if choice is None or choice.token != token:
                break  # not decoded here: a draft policy that chooses otherwise
            found += [
                Departure(index, other, so_far + score)
                for other, score in choice.runners_up
                if choice.log_probability - score <= math.log(MAX_ODDS)
            ]
            so_far += choice.log_probability
        return sorted(found, key=lambda departure: -departure.log_probability)
