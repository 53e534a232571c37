"""Evidence lower bound of given sequences under a denoising model, with the error of the estimate (paper, eq. 5, 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion_core.diffusion.losses import Denoise, token_losses
from diffusion_core.diffusion.mask_noise import corrupt_mask
from diffusion_core.diffusion.schedule import NoiseSchedule, draw_times
from diffusion_core.errors import ConfigError


@dataclass(frozen=True)
class ElboEstimate:
    """Bound on log p(x_0) in nats, float32 [B], and the variance of that mean over the draws (two draws at least)."""

    mean: torch.Tensor
    variance: torch.Tensor
    num_samples: int

    @property
    def standard_error(self) -> torch.Tensor:
        """Square root of the variance of the mean, [B]."""
        return self.variance.sqrt()


@torch.no_grad()
def estimate_elbo(
    denoise: Denoise,
    x_0: torch.Tensor,
    mask_id: int,
    *,
    num_samples: int,
    generator: torch.Generator,
    schedule: NoiseSchedule | None = None,
    may_mask: torch.Tensor | None = None,
    with_reconstruction: bool = False,
) -> ElboEstimate:
    """Monte-Carlo estimate of eq. 5 (as a bound: the negative of the loss) for sequences x_0 [B, L].

    With a ``schedule`` each draw takes a time, stratified over the draws of a sequence, and weights its masked tokens
    with gamma' / gamma. Without one each draw masks a number m of positions, uniform in 1..L, and weights them with
    L / m: the same expectation (the integral over t is the mean over orders of eq. 7, whatever the schedule), and a
    smaller variance, because the number of masks no longer varies about its mean. ``may_mask`` bool [B, L] excludes
    padding and given tokens.

    Differs:
        ``with_reconstruction`` adds log p(x_0 | x_0), the first term of eq. 5. It is off by default: at t = 0 nothing
        is masked and the exact bound of the mask process has no such term; a model without carry-over may pay it.

    Raises:
        ConfigError: fewer than two samples, from which no variance can be had.
    """
    if num_samples < 2:
        raise ConfigError(f"num_samples is {num_samples}: the variance of the estimate needs at least 2")
    eligible = torch.ones_like(x_0, dtype=torch.bool) if may_mask is None else may_mask
    times = torch.stack(
        [draw_times(num_samples, generator, low=1e-6, device=x_0.device) for _ in range(len(x_0))], dim=-1
    )
    draws = []
    for t in times:
        if schedule is not None:
            x_t, is_masked = corrupt_mask(x_0, schedule.gamma(t[:, None]), mask_id, generator, may_mask=eligible)
            weight = schedule.weight(t[:, None])
        else:
            x_t, is_masked, weight = _mask_count(x_0, t, eligible, mask_id, generator)
        draws.append(-(token_losses(denoise(x_t), x_0, mask_id) * is_masked * weight).sum(-1))
    values = torch.stack(draws)
    mean = values.mean(0)
    if with_reconstruction:
        mean = mean - (token_losses(denoise(x_0), x_0, mask_id) * eligible).sum(-1)
    return ElboEstimate(mean, values.var(0) / num_samples, num_samples)


def _mask_count(
    x_0: torch.Tensor, t: torch.Tensor, eligible: torch.Tensor, mask_id: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mask exactly m of the n eligible positions of each row, m = ceil(t n): x_t, is_masked, and the weight n / m."""
    num = eligible.sum(-1)
    count = torch.ceil(t * num).long().clamp_min(1)
    uniform = torch.rand(x_0.shape, generator=generator, device=generator.device).to(x_0.device)
    rank = uniform.masked_fill(~eligible, 2.0).argsort(-1).argsort(-1)
    is_masked = (rank < count.unsqueeze(-1)) & eligible
    return x_0.masked_fill(is_masked, mask_id), is_masked, (num / count).unsqueeze(-1)
