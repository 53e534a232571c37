"""ELBO estimates against closed forms: two tokens of a known joint distribution."""

from __future__ import annotations

import math

import pytest
import torch

from diffusion_core.diffusion.elbo import estimate_elbo
from diffusion_core.diffusion.schedule import CosineSchedule, LinearSchedule, NoiseSchedule
from diffusion_core.errors import ConfigError

MASK = 2
# P(first, second) over two tokens; the model's conditionals are those of another, wrong joint, so that the bound
# depends on the order and is not simply log P.
JOINT = torch.tensor([[0.5, 0.1], [0.15, 0.25]])


def denoise(x_t: torch.Tensor) -> torch.Tensor:
    """Conditionals: exact given the first token; given the second they are flattened, so orders differ."""
    logits = torch.full((*x_t.shape, 3), 1.7)  # the mask's own logit is finite: it has to be banned
    for row, (first, second) in enumerate(x_t.tolist()):
        p_first = JOINT.sum(1) if second == MASK else (JOINT[:, second] + 0.1) / (JOINT[:, second] + 0.1).sum()
        p_second = JOINT.sum(0) if first == MASK else JOINT[first] / JOINT[first].sum()
        logits[row, 0, :2], logits[row, 1, :2] = p_first.log(), p_second.log()
    return logits


def closed_form(first: int, second: int) -> float:
    """Mean over the two orders (eq. 7): (log p(a) + log p(b|a)) / 2 + (log p(b) + log p(a|b)) / 2."""
    p_a, p_b = JOINT.sum(1)[first], JOINT.sum(0)[second]
    b_given_a = JOINT[first, second] / JOINT[first].sum()
    a_given_b = (JOINT[first, second] + 0.1) / (JOINT[:, second] + 0.1).sum()
    return float((p_a.log() + b_given_a.log() + p_b.log() + a_given_b.log()) / 2)


@pytest.mark.parametrize("schedule", [None, LinearSchedule(), CosineSchedule()])
def test_two_tokens_against_the_closed_form(schedule: NoiseSchedule | None) -> None:
    x_0 = torch.tensor([[a, b] for a in (0, 1) for b in (0, 1)])
    estimate = estimate_elbo(
        denoise, x_0, MASK, num_samples=1500, generator=torch.Generator().manual_seed(0), schedule=schedule
    )
    wanted = torch.tensor([closed_form(a, b) for a, b in x_0.tolist()])
    assert ((estimate.mean - wanted).abs() <= 4.5 * estimate.standard_error).all()
    assert (estimate.standard_error < 0.12).all()


def test_counting_masks_has_the_smaller_variance() -> None:
    x_0 = torch.tensor([[0, 1]])
    by_time, by_count = (
        estimate_elbo(denoise, x_0, MASK, num_samples=800, generator=torch.Generator().manual_seed(0), schedule=s)
        for s in (LinearSchedule(), None)
    )
    assert float(by_count.variance) < 0.5 * float(by_time.variance)


def test_variance_falls_with_the_number_of_samples() -> None:
    x_0 = torch.tensor([[0, 1]])
    small, large = (
        estimate_elbo(denoise, x_0, MASK, num_samples=n, generator=torch.Generator().manual_seed(0)) for n in (50, 800)
    )
    assert float(large.variance) == pytest.approx(float(small.variance) / 16, rel=0.6)


def test_an_exact_model_reaches_log_p() -> None:
    def exact(x_t: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*x_t.shape, 3)
        for row, (first, second) in enumerate(x_t.tolist()):
            logits[row, 0, :2] = (JOINT.sum(1) if second == MASK else JOINT[:, second]).log()
            logits[row, 1, :2] = (JOINT.sum(0) if first == MASK else JOINT[first]).log()
        return logits

    estimate = estimate_elbo(
        exact, torch.tensor([[1, 0]]), MASK, num_samples=1500, generator=torch.Generator().manual_seed(0)
    )
    assert float(estimate.mean) == pytest.approx(math.log(0.15), abs=4.5 * float(estimate.standard_error))


def test_positions_that_may_not_be_masked_add_nothing() -> None:
    may_mask = torch.tensor([[True, False]])
    estimate = estimate_elbo(
        denoise, torch.tensor([[0, 1]]), MASK, num_samples=10, generator=torch.Generator(), may_mask=may_mask
    )
    wanted = math.log((0.1 + 0.1) / (0.1 + 0.1 + 0.25 + 0.1))
    assert float(estimate.mean) == pytest.approx(wanted, abs=1e-5)
    assert float(estimate.variance) == pytest.approx(0, abs=1e-9)


def test_reconstruction_term_and_too_few_samples() -> None:
    arguments = {"num_samples": 4, "may_mask": torch.tensor([[True, False]])}
    x_0 = torch.tensor([[0, 1]])
    without = estimate_elbo(denoise, x_0, MASK, generator=torch.Generator().manual_seed(0), **arguments)
    having = estimate_elbo(
        denoise, x_0, MASK, generator=torch.Generator().manual_seed(0), with_reconstruction=True, **arguments
    )
    assert float(having.mean) == pytest.approx(2 * float(without.mean), abs=1e-5)
    with pytest.raises(ConfigError, match="at least 2"):
        estimate_elbo(denoise, x_0, MASK, num_samples=1, generator=torch.Generator())
