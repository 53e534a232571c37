"""Which positions of a block commit at a denoising step, and which reopen."""

from __future__ import annotations

import torch


def select_by_confidence(confidence: torch.Tensor, is_masked: torch.Tensor, tau: float) -> torch.Tensor:
    """Masked slots whose confidence is at least ``tau``, and always the most confident one: bool [B].

    Without the top-1 fallback a step could commit nothing and the block would never end.
    """
    chosen = is_masked & (confidence >= tau)
    if not chosen.any() and is_masked.any():
        chosen = chosen.clone()
        chosen[confidence.masked_fill(~is_masked, float("-inf")).argmax()] = True
    return chosen


def select_fixed(confidence: torch.Tensor, is_masked: torch.Tensor, num_per_step: int) -> torch.Tensor:
    """The ``num_per_step`` most confident masked slots: bool [B]."""
    count = min(num_per_step, int(is_masked.sum()))
    chosen = torch.zeros_like(is_masked)
    if count:
        chosen[confidence.masked_fill(~is_masked, float("-inf")).topk(count).indices] = True
    return chosen


def select_remask(
    confidence: torch.Tensor, is_masked: torch.Tensor, may_reopen: torch.Tensor, tau_low: float
) -> torch.Tensor:
    """Committed slots of the still active block whose current token became unlikely: bool [B].

    ``confidence`` [B] is the probability of each slot's current token; ``may_reopen`` excludes the prompt's tokens
    and slots that were reopened too often, so that a block always ends (paper, remark 3.1: no carry-over).
    """
    return ~is_masked & may_reopen & (confidence < tau_low)
