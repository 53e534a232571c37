"""How many positions of a canvas's block commit at each step, and which: the schedules of the open samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from diffusion_core.model.config import Certainty
from diffusion_core.sampling.unmask import select_by_confidence, select_fixed

# From the number of masks and the first step that is still to be made to tokens a step, none of them 0.
Schedule = Callable[[int, int], list[int]]


class CommitRule(Protocol):
    """Chooses what commits; ``certainty`` is what it wants to be told of each position."""

    @property
    def certainty(self) -> Certainty:
        """What positions are ranked by."""
        ...

    def begin(self, num_masked: int, first_step: int = 0) -> None:
        """A block with so many masks begins, of whose steps ``first_step`` are made already."""
        ...

    def select(self, certainty: torch.Tensor, is_masked: torch.Tensor) -> torch.Tensor:
        """Positions that commit now, bool [B], at least one while any is masked."""
        ...


@dataclass
class ThresholdRule:
    """Everything whose probability is at least ``tau``, and always the most probable one."""

    tau: float
    certainty: Certainty = Certainty.PROBABILITY

    def begin(self, num_masked: int, first_step: int = 0) -> None:
        """Nothing to prepare."""

    def select(self, certainty: torch.Tensor, is_masked: torch.Tensor) -> torch.Tensor:
        """See :class:`CommitRule`."""
        return select_by_confidence(certainty, is_masked, self.tau)


@dataclass
class ScheduledRule:
    """As many a step as ``schedule`` says, the most certain first."""

    schedule: Schedule
    certainty: Certainty = Certainty.PROBABILITY
    _left: list[int] = field(default_factory=list)

    def begin(self, num_masked: int, first_step: int = 0) -> None:
        """Count the block's steps out."""
        self._left = self.schedule(num_masked, first_step)

    def select(self, certainty: torch.Tensor, is_masked: torch.Tensor) -> torch.Tensor:
        """See :class:`CommitRule`; positions that were reopened find the schedule at its end and commit one by one."""
        return select_fixed(certainty, is_masked, self._left.pop(0) if self._left else 1)


def constant(num_per_step: int) -> Schedule:
    """The same number at every step."""

    def count(num_masked: int, first_step: int) -> list[int]:
        return [num_per_step] * -(-num_masked // num_per_step)

    return count


def even(steps: int) -> Schedule:
    """LLaDA: masks over steps, what is left over in the first ones."""

    def count(num_masked: int, first_step: int) -> list[int]:
        share, rest = divmod(num_masked, steps)
        counts = [share + (step < rest) for step in range(steps)]
        return [n for n in counts[first_step:] if n]

    return count


def rounded(steps: int) -> Schedule:
    """The linear schedule of dllm: of what is masked at time t the part 1 - s / t, rounded."""

    def count(num_masked: int, first_step: int) -> list[int]:
        counts = []
        for step in range(first_step, steps):
            later, now = 1 - (step + 1) / steps, 1 - step / steps
            # float32 quotients, as there: what is rounded lies on a half often enough.
            stays = float(_masked_share(later) / _masked_share(now))
            n = min(round(num_masked * (1 - stays)), num_masked)
            counts.append(n)
            num_masked -= n
        return [n for n in counts if n]

    return count


def _masked_share(time: float) -> torch.Tensor:
    """1 - alpha(t) of the linear schedule, with alpha = 1 - t, in float32."""
    return 1 - (1 - torch.tensor(time, dtype=torch.float32))


def decaying(steps: int, *, eps: float = 1e-3) -> Schedule:
    """Dream, CoDA and Open-dCoder: times from 1 to ``eps``; of what is masked at t the part 1 - s / t, cut down."""

    def count(num_masked: int, first_step: int) -> list[int]:
        times = torch.linspace(1, eps, steps + 1)
        counts = []
        for step in range(first_step, steps):
            share = 1 - times[step + 1] / times[step]
            n = num_masked if step == steps - 1 else int(torch.tensor(float(num_masked)) * share)
            counts.append(n)
            num_masked -= n
        return [n for n in counts if n]

    return count
