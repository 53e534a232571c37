"""Noise schedules: gamma(t), the probability that a token is masked at time t in [0, 1] (paper, section 3.1, eq. 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from diffusion_core.errors import ConfigError

# Times are kept away from 0: the weight of the linear schedule is 1 / t.
MIN_TIME = 1e-3


class NoiseSchedule(Protocol):
    """gamma(t) rises from gamma(0) = 0 to gamma(1) = 1; times and results are float tensors of the same shape."""

    def gamma(self, t: torch.Tensor) -> torch.Tensor:
        """Probability that a token is masked at time ``t``."""
        ...

    def gamma_derivative(self, t: torch.Tensor) -> torch.Tensor:
        """Slope gamma'(t)."""
        ...

    def weight(self, t: torch.Tensor) -> torch.Tensor:
        """Weight gamma'(t) / gamma(t) of a masked token's loss (eq. 5)."""
        ...


@dataclass(frozen=True)
class LinearSchedule:
    """gamma(t) = t."""

    def gamma(self, t: torch.Tensor) -> torch.Tensor:
        """Probability that a token is masked at time ``t``."""
        return t

    def gamma_derivative(self, t: torch.Tensor) -> torch.Tensor:
        """Slope: 1."""
        return torch.ones_like(t)

    def weight(self, t: torch.Tensor) -> torch.Tensor:
        """1 / t."""
        return 1 / t


@dataclass(frozen=True)
class CosineSchedule:
    """gamma(t) = 1 - cos(pi t / 2): slow at first, so that few tokens are masked for much of the time."""

    def gamma(self, t: torch.Tensor) -> torch.Tensor:
        """Probability that a token is masked at time ``t``."""
        return 1 - torch.cos(math.pi / 2 * t)

    def gamma_derivative(self, t: torch.Tensor) -> torch.Tensor:
        """Slope: (pi / 2) sin(pi t / 2)."""
        return math.pi / 2 * torch.sin(math.pi / 2 * t)

    def weight(self, t: torch.Tensor) -> torch.Tensor:
        """Weight gamma' / gamma, written as (pi / 2) / tan(pi t / 4): the quotient loses all digits near t = 0."""
        return math.pi / 2 / torch.tan(math.pi / 4 * t)


@dataclass(frozen=True)
class BlockClippedSchedule:
    """Another schedule whose mask rate does not fall under 1 / B (Stable-DiffCoder's block-wise clipping).

    Under the plain rate 1 / (B + 1) of the blocks of B tokens would have no mask at all and teach nothing; together
    with ``min_masked=1`` of :func:`~diffusion_core.diffusion.mask_noise.corrupt_mask` every block carries signal.

    Differs:
        Where the rate is clipped its slope is 0 and so would be the weight of eq. 5; the slope of the inner schedule
        is kept there. For the linear schedule the weight is then 1 / max(t, 1 / B), at most B.

    ``block_size`` is one number, or a tensor that broadcasts against the times where blocks differ: a rate clipped by
    another block's size weighs few masks of a larger block far too little.
    """

    block_size: int | torch.Tensor
    inner: NoiseSchedule = LinearSchedule()

    def __post_init__(self) -> None:
        least = int(torch.as_tensor(self.block_size).min())
        if least < 1:
            raise ConfigError(f"block_size is {least}: a block has at least 1 token")

    def gamma(self, t: torch.Tensor) -> torch.Tensor:
        """Probability that a token is masked at time ``t``: at least 1 / B."""
        return torch.maximum(self.inner.gamma(t), 1 / torch.as_tensor(self.block_size, dtype=t.dtype, device=t.device))

    def gamma_derivative(self, t: torch.Tensor) -> torch.Tensor:
        """Slope of the inner schedule (see Differs)."""
        return self.inner.gamma_derivative(t)

    def weight(self, t: torch.Tensor) -> torch.Tensor:
        """Inner slope over the clipped rate."""
        return self.gamma_derivative(t) / self.gamma(t)


def draw_times(
    num: int, generator: torch.Generator, *, low: float = MIN_TIME, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """One time per block, float32 [num], uniform over [low, 1] and stratified over the batch.

    Each of ``num`` equal parts of the interval gets one time, in random order, so that the mean weight of a batch
    varies far less than with independent times. Paper, section 3.1: t ~ [0, 1].

    Differs:
        Times start at ``low`` instead of 0, where gamma' / gamma has its pole.
    """
    if not 0 <= low < 1:
        raise ConfigError(f"the lowest time is {low}: allowed is 0 to below 1")
    drawn = torch.rand(num, generator=generator, device=generator.device)
    order = torch.randperm(num, generator=generator, device=generator.device)
    uniform = (order + drawn) / max(num, 1)
    return (low + (1 - low) * uniform).to(device)
