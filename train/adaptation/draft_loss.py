"""The loss of draft blocks, and how many tokens their drafts would have saved.

Masked cross-entropy (paper, eq. 6) with shifted alignment. A row's target is the token that follows its position, or
the base's own distribution there: `verified` accepts a draft exactly as far as the base agrees with it.

Differs: weights fall with the distance into the block instead of gamma'(t)/gamma(t), because an accepted token at
offset k needs all offsets before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from train.adaptation.blocks import DraftBlocks

# Rows whose token is known and true: the objective has no carry-over (remark 3.1), but little is to be learned there.
_KNOWN_WEIGHT = 0.1


@dataclass(frozen=True, kw_only=True)
class DraftTargets:
    """What the rows of blocks should say, as indices into the cut vocabulary.

    ``tokens`` [B, N, S] follow the rows in the text (-1: outside the vocabulary), ``best`` [B, N, S] is the base's
    choice. ``logits`` [B, T, V'] are the base's by clean position, ``rows`` [B, N * S] each row's place in them.
    """

    tokens: torch.Tensor
    best: torch.Tensor
    logits: torch.Tensor
    rows: torch.Tensor


def make_targets(
    blocks: DraftBlocks, tokens: torch.Tensor, base_logits: torch.Tensor, index_of: torch.Tensor
) -> DraftTargets:
    """Targets from clean ``tokens`` [B, T] and the base's logits [B, T, V'] after each of them.

    ``index_of`` int64 [V] maps a token to its place in the cut vocabulary, -1 where it has none. The base's choice is
    the best of the cut vocabulary: what a drafter over it could have drafted.
    """
    batch, num_blocks, size = blocks.tokens.shape
    rows = blocks.positions.clamp_max(tokens.shape[1] - 2)
    following = index_of[tokens.gather(1, rows + 1)]
    best = base_logits.argmax(-1).gather(1, rows)
    shape = (batch, num_blocks, size)
    return DraftTargets(tokens=following.view(shape), best=best.view(shape), logits=base_logits, rows=rows)


def row_weights(blocks: DraftBlocks, offset_decay: float) -> torch.Tensor:
    """Weight of every row, float32 [B, N, S]: 0 where unused, small where the answer is already shown."""
    size = blocks.tokens.shape[2]
    decay = offset_decay ** torch.arange(size, device=blocks.starts.device)
    is_open = blocks.is_masked | blocks.is_wrong
    # Row j speaks of slot j + 1; the last row's answer is never shown.
    next_open = torch.cat((is_open[..., 1:], torch.ones_like(is_open[..., :1])), dim=-1)
    if blocks.is_causal:
        next_open = next_open | ~blocks.is_masked  # a revealed row does not see what is behind it
    return torch.where(next_open, 1.0, _KNOWN_WEIGHT) * decay * blocks.is_used


def draft_loss(
    logits: torch.Tensor, targets: DraftTargets, weights: torch.Tensor, distill_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted loss sum and sum of weights for ``logits`` [B, N * S, V']."""
    log_p = logits.log_softmax(-1)
    flat = targets.tokens.flatten(1)
    weights = weights.flatten(1)
    total = logits.new_zeros(())
    if distill_weight < 1:
        hard = weights * (flat >= 0)
        nll = -log_p.gather(-1, flat.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        total = total + (1 - distill_weight) * (hard * nll).sum()
    if distill_weight > 0:
        wanted = targets.logits.softmax(-1)
        wanted = wanted.gather(1, targets.rows.unsqueeze(-1).expand(-1, -1, wanted.shape[-1]))
        total = total - distill_weight * (weights * (wanted * log_p).sum(-1)).sum()
    return total, weights.sum()


@torch.no_grad()
def count_accepted(
    logits: torch.Tensor, blocks: DraftBlocks, targets: DraftTargets, first_row: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Agreement with the base by offset, and tokens per forward, in the blocks that are all masks: one denoising step.

    A forward gives the accepted rows and one token of the base's own. ``first_row`` is the first row that drafts.
    Where revealed rows are causal, the blocks that are all revealed tell the same of as many steps as slots
    (``stepwise``): each row has seen the rows before it.
    """
    best = logits.argmax(-1).view(blocks.tokens.shape)
    agrees = best == targets.best
    metrics: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    kinds = {"": blocks.is_full} | ({"stepwise_": blocks.is_known} if blocks.is_causal else {})
    for name, is_kind in kinds.items():
        counted = blocks.is_used & is_kind.unsqueeze(-1)
        right = agrees & counted
        for j in range(first_row, best.shape[-1]):
            metrics[f"{name}accuracy/{j}"] = (right[..., j].sum(), counted[..., j].sum())
        accepted = right[..., first_row:].long().cumprod(-1).sum(-1)
        chosen = is_kind & blocks.is_used[..., first_row]
        metrics[f"{name}tokens_per_forward"] = (((accepted + 1) * chosen).sum(), chosen.sum())
    return metrics
