"""Mask corruption has the marginal of eq. 2, its transition that of eq. 8, forced masks where asked for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.diffusion.mask_noise import corrupt_mask, corrupt_mask_further
from diffusion_core.errors import ConfigError

MASK = 99


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


@given(rate=st.floats(0, 1), seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_marginal_mask_rate(rate: float, seed: int) -> None:
    x_0 = tokens(200, 100)
    x_t, is_masked = corrupt_mask(x_0, rate, MASK, torch.Generator().manual_seed(seed))
    assert torch.equal(x_t == MASK, is_masked)
    assert torch.equal(x_t[~is_masked], x_0[~is_masked])
    spread = (rate * (1 - rate) / x_0.numel()) ** 0.5
    assert abs(float(is_masked.float().mean()) - rate) <= 5.5 * spread + 1e-9


def test_rate_is_per_block_and_per_position() -> None:
    rate = torch.tensor([[0.0], [1.0], [0.5]])
    _, is_masked = corrupt_mask(tokens(3, 4000), rate, MASK, torch.Generator().manual_seed(0))
    share = is_masked.float().mean(-1)
    assert share[0] == 0 and share[1] == 1 and abs(float(share[2]) - 0.5) < 0.05
    # Tokens are treated independently (eq. 1): neighbours are masked together as often as chance has it.
    both = (is_masked[2, 1:] & is_masked[2, :-1]).float().mean()
    assert abs(float(both) - 0.25) < 0.04


@given(seed=st.integers(0, 10**6), size=st.integers(1, 16), least=st.integers(1, 3), rate=st.floats(0, 1))
def test_forced_masks(seed: int, size: int, least: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    may_mask = torch.rand(20, size, generator=generator) < 0.7
    x_t, is_masked = corrupt_mask(tokens(20, size), rate, MASK, generator, may_mask=may_mask, min_masked=least)
    assert not (is_masked & ~may_mask).any()
    assert (is_masked.sum(-1) >= torch.minimum(may_mask.sum(-1), torch.tensor(least))).all()
    assert torch.equal(x_t == MASK, is_masked)


def test_forcing_adds_only_where_too_few_were_drawn() -> None:
    x_0, plain, forced = tokens(500, 6), torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    without = corrupt_mask(x_0, 0.3, MASK, plain).is_masked
    having = corrupt_mask(x_0, 0.3, MASK, forced, min_masked=1).is_masked
    enough = without.any(-1)
    assert torch.equal(without[enough], having[enough])
    assert (~enough).any() and (having[~enough].sum(-1) == 1).all()


@given(early=st.floats(0, 1), late=st.floats(0, 1), seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_transition_composes_to_the_marginal(early: float, late: float, seed: int) -> None:
    gamma_s, gamma_t = min(early, late), max(early, late)
    generator = torch.Generator().manual_seed(seed)
    x_s = corrupt_mask(tokens(100, 200), gamma_s, MASK, generator).x_t
    x_t = corrupt_mask_further(x_s, gamma_s, gamma_t, MASK, generator)
    assert (x_t[x_s == MASK] == MASK).all()
    assert torch.equal(x_t[x_t != MASK], x_s[x_t != MASK])
    spread = (gamma_t * (1 - gamma_t) / x_t.numel()) ** 0.5
    assert abs(float((x_t == MASK).float().mean()) - gamma_t) <= 5.5 * spread + 1e-4


def test_transition_refuses_to_remove_masks() -> None:
    with pytest.raises(ConfigError, match="gamma must rise"):
        corrupt_mask_further(tokens(2, 4), 0.5, 0.4, MASK, torch.Generator())
