"""The objective: weighted masked cross-entropy plus plain cross-entropy under edits (paper, section 3.1, eq. 5-6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusion_core.diffusion.edit_noise import MAX_ALPHA, corrupt_edit, edit_budget
from diffusion_core.diffusion.mask_noise import corrupt_mask
from diffusion_core.diffusion.schedule import MIN_TIME, NoiseSchedule, draw_times
from diffusion_core.errors import InvalidRequest

Denoise = Callable[[torch.Tensor], torch.Tensor]
"""Scores [B, L, V] of every position of x_t [B, L]; every position, masked or not, is evaluated (remark 3.1)."""


def ban_mask_token(logits: torch.Tensor, mask_id: int) -> torch.Tensor:
    """``logits`` [..., V] with the mask token's at minus infinity: it has probability 0 always (section 3.1).

    An id outside the vocabulary (a drafter with a mask embedding of its own) has no logit to ban.
    """
    if not 0 <= mask_id < logits.shape[-1]:
        return logits
    return logits.index_fill(-1, torch.tensor([mask_id], device=logits.device), float("-inf"))


def token_losses(logits: torch.Tensor, targets: torch.Tensor, mask_id: int) -> torch.Tensor:
    """-log p(target), float32 [...], of ``logits`` [..., V] for ``targets`` [...] with the mask token banned.

    Raises:
        InvalidRequest: a target is the mask token, whose probability is 0 by construction.
    """
    if bool((targets == mask_id).any()):
        raise InvalidRequest(f"a target is the mask token {mask_id}: targets are clean tokens (x_0), never x_t")
    allowed = ban_mask_token(logits.float(), mask_id)
    losses = F.cross_entropy(allowed.reshape(-1, allowed.shape[-1]), targets.reshape(-1), reduction="none")
    return losses.view(targets.shape)


def masked_cross_entropy(
    logits: torch.Tensor,
    x_0: torch.Tensor,
    is_masked: torch.Tensor,
    weight: torch.Tensor | float,
    mask_id: int,
) -> torch.Tensor:
    """The second term of eq. 5 and 6 as a sum over positions: a scalar with gradient.

    Args:
        logits: scores [..., V].
        x_0: clean tokens [...].
        is_masked: bool [...], the positions that count.
        weight: gamma'(t) / gamma(t), broadcast against ``x_0``.
        mask_id: the mask token.
    """
    return (token_losses(logits, x_0, mask_id) * is_masked * weight).sum()


def reconstruction_loss(
    logits: torch.Tensor, x_0: torch.Tensor, counted: torch.Tensor | float, mask_id: int
) -> torch.Tensor:
    """The first term of eq. 5 (scores given x_0 itself) or of eq. 6 (scores given an edited x_t), summed: a scalar.

    All positions count, the changed and the untouched ones: no carry-over of unmasked tokens (remark 3.1).
    ``counted`` weights positions, broadcast against ``x_0`` (0 for padding and for what belongs to the prompt).
    """
    return (token_losses(logits, x_0, mask_id) * counted).sum()


@dataclass(frozen=True)
class EditNoise:
    """Parameters of the edit corruption: see :func:`~diffusion_core.diffusion.edit_noise.corrupt_edit`."""

    replacements: torch.Tensor
    pad_id: int
    max_alpha: float = MAX_ALPHA


@dataclass(frozen=True)
class DiffusionLoss:
    """The two terms, each a sum over the batch with gradient, and the number of sequences they are summed over."""

    mask_term: torch.Tensor
    other_term: torch.Tensor
    num_sequences: int

    @property
    def total(self) -> torch.Tensor:
        """Mean over the sequences of the batch: L_ELBO (eq. 5) or L_diff (eq. 6)."""
        return (self.mask_term + self.other_term) / self.num_sequences


def diffusion_loss(
    denoise: Denoise,
    x_0: torch.Tensor,
    *,
    schedule: NoiseSchedule,
    mask_id: int,
    generator: torch.Generator,
    edit_noise: EditNoise | None = None,
    min_time: float = MIN_TIME,
    min_masked: int = 0,
) -> DiffusionLoss:
    """Eq. 5 (without ``edit_noise``: the mask stage) or eq. 6 (with it: the edit stage) on sequences x_0 [B, L].

    Each row of ``x_0`` is one block with a time of its own. ``denoise`` is called twice: on the masked sequences, and
    on x_0 itself (eq. 5) or on the edited sequences (eq. 6).

    Differs:
        Times are stratified over the batch and clipped away from 0 (:func:`draw_times`).
    """
    t = draw_times(len(x_0), generator, low=min_time, device=x_0.device).unsqueeze(-1)
    masked = corrupt_mask(x_0, schedule.gamma(t), mask_id, generator, min_masked=min_masked)
    mask_term = masked_cross_entropy(denoise(masked.x_t), x_0, masked.is_masked, schedule.weight(t), mask_id)
    given = x_0
    if edit_noise is not None:
        times = draw_times(len(x_0), generator, low=0.0, device=x_0.device)
        budget = edit_budget(x_0.shape[-1], times, max_alpha=edit_noise.max_alpha)
        given = corrupt_edit(x_0, budget, edit_noise.replacements, edit_noise.pad_id, generator).x_t
    other_term = reconstruction_loss(denoise(given), x_0, 1.0, mask_id)
    return DiffusionLoss(mask_term, other_term, len(x_0))
