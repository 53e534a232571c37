"""Schedules rise from 0 to 1, their weights are what the formulas say, and times are stratified."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.diffusion.schedule import (
    BlockClippedSchedule,
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    draw_times,
)
from diffusion_core.errors import ConfigError

SCHEDULES = [LinearSchedule(), CosineSchedule()]
TIMES = torch.linspace(0.001, 1, 500, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gamma_rises_from_0_to_1(schedule: NoiseSchedule) -> None:
    ends = schedule.gamma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(ends, torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-12)
    assert (schedule.gamma(TIMES).diff() > 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_derivative_and_weight_belong_to_gamma(schedule: NoiseSchedule) -> None:
    step = 1e-6
    slope = (schedule.gamma(TIMES + step) - schedule.gamma(TIMES - step)) / (2 * step)
    assert torch.allclose(schedule.gamma_derivative(TIMES), slope, atol=1e-6)
    assert torch.allclose(schedule.weight(TIMES), slope / schedule.gamma(TIMES), rtol=1e-4)


def test_cosine_weight_keeps_its_digits_near_0() -> None:
    weight = CosineSchedule().weight(torch.tensor([1e-4]))
    assert float(weight) == pytest.approx(2 / 1e-4, rel=1e-4)  # gamma ~ (pi t / 2)^2 / 2, so gamma' / gamma ~ 2 / t


@pytest.mark.parametrize("inner", SCHEDULES)
@given(size=st.integers(1, 64))
def test_clipped_rate_is_at_least_one_token_of_a_block(inner: NoiseSchedule, size: int) -> None:
    schedule = BlockClippedSchedule(size, inner)
    gamma = schedule.gamma(TIMES)
    assert (gamma >= 1 / size - 1e-12).all()
    assert (gamma.diff() >= 0).all()
    above = inner.gamma(TIMES) > 1 / size
    assert torch.equal(gamma[above], inner.gamma(TIMES)[above])
    assert (schedule.weight(TIMES) > 0).all()
    assert (schedule.weight(TIMES) <= math.pi / 2 * size + 1e-9).all()


def test_every_block_is_clipped_by_its_own_size() -> None:
    sizes, times = torch.tensor([[1], [4], [16]]), TIMES.unsqueeze(0)
    found = BlockClippedSchedule(sizes)
    for row, size in enumerate(sizes.flatten().tolist()):
        alone = BlockClippedSchedule(size)
        assert torch.equal(found.gamma(times)[row], alone.gamma(TIMES))
        assert torch.equal(found.weight(times)[row], alone.weight(TIMES))


@given(num=st.integers(1, 200), seed=st.integers(0, 1000), low=st.floats(0, 0.5))
def test_each_part_of_the_interval_gets_one_time(num: int, seed: int, low: float) -> None:
    times = draw_times(num, torch.Generator().manual_seed(seed), low=low)
    assert times.shape == (num,)
    assert (times >= low).all() and (times <= 1).all()
    part = ((times.double() - low) / (1 - low) * num - 1e-4).floor().clamp_min(0)
    # float32 may put a time on the border of its part; never further away.
    assert (part.sort().values - torch.arange(num)).abs().max() <= 1


def test_times_are_drawn_in_random_order_and_reproducibly() -> None:
    first, again = (draw_times(64, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, first.sort().values)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="block_size is 0"):
        BlockClippedSchedule(0)
    with pytest.raises(ConfigError, match="block_size is 0"):
        BlockClippedSchedule(torch.tensor([4, 0]))
    with pytest.raises(ConfigError, match=r"lowest time is 1\.0"):
        draw_times(4, torch.Generator(), low=1.0)
