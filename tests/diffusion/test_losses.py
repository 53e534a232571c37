"""The objective of eq. 5 and 6: zero for a model that knows, the mask logit banned, no carry-over."""

from __future__ import annotations

import pytest
import torch

from diffusion_core.diffusion.losses import (
    EditNoise,
    ban_mask_token,
    diffusion_loss,
    masked_cross_entropy,
    token_losses,
)
from diffusion_core.diffusion.schedule import BlockClippedSchedule, CosineSchedule, LinearSchedule
from diffusion_core.errors import InvalidRequest

VOCABULARY, MASK = 12, 11


def knows(x_0: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(x_0, VOCABULARY) * 60.0


@pytest.fixture
def x_0() -> torch.Tensor:
    return torch.randint(0, MASK, (64, 16), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(), BlockClippedSchedule(16)])
@pytest.mark.parametrize("edits", [False, True])
def test_a_model_that_knows_the_answer_has_no_loss(x_0: torch.Tensor, schedule: LinearSchedule, edits: bool) -> None:
    noise = EditNoise(torch.arange(MASK), pad_id=0) if edits else None
    generator = torch.Generator().manual_seed(1)
    loss = diffusion_loss(
        lambda _: knows(x_0), x_0, schedule=schedule, mask_id=MASK, generator=generator, edit_noise=noise
    )
    assert float(loss.total) == pytest.approx(0, abs=1e-6)


def test_a_model_that_knows_nothing_pays_log_v_per_token(x_0: torch.Tensor) -> None:
    big = x_0.repeat(60, 1)
    generator = torch.Generator().manual_seed(1)
    loss = diffusion_loss(
        lambda x: torch.zeros(*x.shape, VOCABULARY), big, schedule=LinearSchedule(), mask_id=MASK, generator=generator
    )
    nats = torch.log(torch.tensor(float(VOCABULARY - 1)))  # the mask token takes no probability
    # E[ gamma' / gamma * number of masks ] is the number of tokens, whatever the schedule.
    assert float(loss.mask_term / len(big)) == pytest.approx(16 * float(nats), rel=0.05)
    assert float(loss.other_term / len(big)) == pytest.approx(16 * float(nats), rel=1e-4)


def test_eq_5_reconstructs_x_0_and_eq_6_an_edited_one(x_0: torch.Tensor) -> None:
    seen: list[torch.Tensor] = []

    def denoise(x_t: torch.Tensor) -> torch.Tensor:
        seen.append(x_t)
        return knows(x_0)

    settings = {"schedule": LinearSchedule(), "mask_id": MASK}
    diffusion_loss(denoise, x_0, generator=torch.Generator().manual_seed(0), **settings)
    assert (seen[0] == MASK).any() and torch.equal(seen[1], x_0)
    noise = EditNoise(torch.arange(MASK), pad_id=0, max_alpha=0.5)
    diffusion_loss(denoise, x_0, generator=torch.Generator().manual_seed(0), edit_noise=noise, **settings)
    assert not (seen[3] == MASK).any() and not torch.equal(seen[3], x_0)


def test_copying_what_is_shown_is_not_rewarded_under_edits(x_0: torch.Tensor) -> None:
    """No carry-over (remark 3.1): a model that copies its input pays for every edited token."""
    noise = EditNoise(torch.arange(MASK), pad_id=0)
    loss = diffusion_loss(
        lambda x: torch.nn.functional.one_hot(x, VOCABULARY) * 60.0,
        x_0,
        schedule=LinearSchedule(),
        mask_id=MASK,
        generator=torch.Generator().manual_seed(0),
        edit_noise=noise,
    )
    assert float(loss.other_term) > 50 * len(x_0) * 0.2


def test_only_masked_positions_count_in_the_mask_term(x_0: torch.Tensor) -> None:
    logits = torch.randn(64, 16, VOCABULARY, generator=torch.Generator().manual_seed(0), requires_grad=True)
    is_masked = torch.rand(64, 16, generator=torch.Generator().manual_seed(2)) < 0.4
    masked_cross_entropy(logits, x_0, is_masked, 2.0, MASK).backward()
    assert logits.grad is not None
    moved = logits.grad.abs().sum(-1) > 0
    assert torch.equal(moved, is_masked)
    assert torch.equal(logits.grad[..., MASK], torch.zeros(64, 16))


def test_mask_logit() -> None:
    logits = torch.randn(3, VOCABULARY)
    banned = ban_mask_token(logits, MASK)
    assert (banned[:, MASK] == float("-inf")).all() and (banned.softmax(-1)[:, MASK] == 0).all()
    assert torch.equal(ban_mask_token(logits, VOCABULARY), logits)  # a mask embedding outside the vocabulary
    assert torch.isfinite(token_losses(logits, torch.tensor([0, 3, 5]), MASK)).all()
    with pytest.raises(InvalidRequest, match="a target is the mask token"):
        token_losses(logits, torch.tensor([0, MASK, 5]), MASK)
