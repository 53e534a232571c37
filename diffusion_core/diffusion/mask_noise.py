"""Mask corruption: tokens become the mask token, each by itself (paper, section 3.1, eq. 1-2; section 3.2, eq. 8)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from diffusion_core.errors import ConfigError


class MaskedTokens(NamedTuple):
    """A corrupted sequence and where it was masked: int64 and bool, the shape of x_0."""

    x_t: torch.Tensor
    is_masked: torch.Tensor


def corrupt_mask(
    x_0: torch.Tensor,
    rate: torch.Tensor | float,
    mask_id: int,
    generator: torch.Generator,
    *,
    may_mask: torch.Tensor | None = None,
    min_masked: int = 0,
) -> MaskedTokens:
    """Draw x_t ~ q_mask(x_t | x_0) (eq. 1-2): every token is masked with probability ``rate``.

    Args:
        x_0: tokens [..., L]; the last axis is one block.
        rate: gamma(t), one number or a tensor that broadcasts against ``x_0`` (for a time per block: [..., 1]).
        mask_id: the mask token.
        generator: of the device that the numbers are drawn on; the result lies on the device of ``x_0``.
        may_mask: bool [..., L]; where False the token stays (the prompt's part of a block, padding).
        min_masked: masks forced in each block, as far as ``may_mask`` allows.

    Differs:
        ``min_masked`` raises the marginal of eq. 2 for blocks that would have fewer masks (Stable-DiffCoder).
    """
    uniform = torch.rand(x_0.shape, generator=generator, device=generator.device).to(x_0.device)
    if may_mask is not None:
        # Above every rate and every rank: such a position is never chosen.
        uniform = uniform.masked_fill(~may_mask, 2.0)
    is_masked = uniform < rate
    if min_masked:
        lowest = uniform.topk(min(min_masked, x_0.shape[-1]), dim=-1, largest=False)
        forced = torch.zeros_like(is_masked).scatter(-1, lowest.indices, lowest.values <= 1)
        # The positions with the lowest numbers are the masked ones, so this adds masks only where too few were drawn.
        is_masked = is_masked | forced
    return MaskedTokens(x_0.masked_fill(is_masked, mask_id), is_masked)


def corrupt_mask_further(
    x_s: torch.Tensor,
    gamma_s: torch.Tensor | float,
    gamma_t: torch.Tensor | float,
    mask_id: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw x_t ~ q_mask(x_t | x_s), t > s (eq. 8): int64 of the shape of ``x_s``.

    A mask stays; a token is masked with probability (gamma_t - gamma_s) / (1 - gamma_s). Drawing x_s from x_0 and
    then x_t from x_s gives the marginal of eq. 2 at t.

    Raises:
        ConfigError: gamma falls from s to t, or leaves [0, 1].
    """
    early, late = torch.as_tensor(gamma_s), torch.as_tensor(gamma_t)
    if bool((late < early).any() | (early < 0).any() | (late > 1).any()):
        raise ConfigError("gamma must rise from s to t inside [0, 1]: the forward process only adds masks")
    rate = torch.where(early < 1, (late - early) / (1 - early).clamp_min(1e-12), 0.0).to(x_s.device)
    uniform = torch.rand(x_s.shape, generator=generator, device=generator.device).to(x_s.device)
    return x_s.masked_fill(uniform < rate, mask_id)
