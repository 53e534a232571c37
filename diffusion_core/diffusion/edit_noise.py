"""Edit corruption: deletions, insertions, substitutions on a canvas of fixed length (paper, section 3.1, eq. 3-4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from diffusion_core.errors import ConfigError

# The paper keeps alpha_t in [0, 0.1], "to maintain the density estimation ability" of the mask process.
MAX_ALPHA = 0.1


class EditedTokens(NamedTuple):
    """A corrupted canvas int64 [B, L] and, per row, the operations applied and the bound on its distance to x_0.

    ``num_edits`` <= ``distance_bound`` <= k_t, and the true Levenshtein distance is at most ``distance_bound``.
    """

    x_t: torch.Tensor
    num_edits: torch.Tensor
    distance_bound: torch.Tensor


def edit_budget(length: torch.Tensor | int, t: torch.Tensor, *, max_alpha: float = MAX_ALPHA) -> torch.Tensor:
    """k_t = floor(|x_0| * alpha_t) (eq. 4) with alpha_t = ``max_alpha`` * t: int64 of the shape of ``t``."""
    if not 0 <= max_alpha <= 1:
        raise ConfigError(f"max_alpha is {max_alpha}: allowed is 0 to 1 (the paper uses {MAX_ALPHA})")
    # The small constant: 20 * 0.1 * 1.0 is 2 edits, not the 1 that float32 may make of it.
    return torch.floor(torch.as_tensor(length) * max_alpha * t + 1e-6).long()


@dataclass
class _Canvas:
    """Rows being edited, and what decides the distance of each to x_0.

    ``num_pads`` pads stand at the end because deletions left a gap there; ``num_dropped`` real tokens were pushed
    over the end by insertions. Content edits alone turn x_0 into "content, then the dropped tokens"; turning the
    dropped tokens into the pads takes max(num_dropped, num_pads) more. The sum of both is the bound.
    """

    tokens: torch.Tensor
    num_edits: torch.Tensor
    num_pads: torch.Tensor
    num_dropped: torch.Tensor

    @property
    def bound(self) -> torch.Tensor:
        return self.num_edits + torch.maximum(self.num_dropped, self.num_pads)

    def costs(self) -> torch.Tensor:
        """What one more deletion, insertion, substitution would add to the bound: int64 [B, 3].

        A deletion opens a place at the end that a pad takes: 2, except where it makes up for an earlier overflow.
        """
        tail = torch.maximum(self.num_dropped, self.num_pads)
        after_delete = torch.maximum(self.num_dropped, self.num_pads + 1)
        has_pad = (self.num_pads > 0).long()
        after_insert = torch.maximum(self.num_dropped + 1 - has_pad, self.num_pads - has_pad)
        one = torch.ones_like(tail)
        return torch.stack((1 + after_delete - tail, 1 + after_insert - tail, one), dim=-1)


def corrupt_edit(
    x_0: torch.Tensor,
    num_edits: torch.Tensor,
    replacements: torch.Tensor,
    pad_id: int,
    generator: torch.Generator,
    *,
    may_edit: torch.Tensor | None = None,
) -> EditedTokens:
    """Draw x_t ~ q_edit(x_t | x_0) (eq. 3) within a budget of ``num_edits`` (k_t of eq. 4) for each row.

    The canvas keeps its length: a deletion closes the gap and pads at the end, an insertion shifts right and drops the
    overflow. The target at every position is x_0. Operations are drawn evenly from those that the budget still allows,
    positions evenly over the content, new tokens evenly from ``replacements``.

    Args:
        x_0: canvases [B, L].
        num_edits: int64 [B], at most L.
        replacements: int64 [R], tokens to insert and substitute; without the mask token. Two different ones at least.
        pad_id: fills the end after a deletion.
        generator: of the device that the numbers are drawn on.
        may_edit: bool [B]; rows with False stay as they are.

    Differs:
        Eq. 3 applies exactly k_t operations and leaves open what falls off the end. On a canvas of fixed length a
        deletion also adds a pad and an insertion also drops a token, so k_t operations may be 2 k_t edits of the
        canvas. Here the budget is spent on edits of the canvas: the true Levenshtein distance is never above k_t.

    Raises:
        ConfigError: too few replacements, or a budget larger than the canvas.
    """
    if bool((replacements == replacements[:1]).all()):
        raise ConfigError("edit noise needs at least two different replacement tokens")
    budget = num_edits if may_edit is None else num_edits * may_edit.long()
    num_rows, length = x_0.shape
    if bool((budget > length).any()):
        raise ConfigError(f"an edit budget exceeds the canvas of {length} tokens: keep alpha at most 1")
    zeros = torch.zeros(num_rows, dtype=torch.long, device=x_0.device)
    canvas = _Canvas(x_0.clone(), zeros, zeros.clone(), zeros.clone())
    for _ in range(int(budget.max()) if num_rows else 0):
        left = (budget - canvas.bound).unsqueeze(-1)
        # An insertion that takes a pad's place is free, yet with nothing left no deletion would ever stand alone.
        fits = (canvas.costs() <= left) & (left > 0)
        _apply_one(canvas, fits, replacements.to(x_0.device), pad_id, generator)
    return EditedTokens(canvas.tokens, canvas.num_edits, canvas.bound)


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(device)


def _apply_one(
    canvas: _Canvas, fits: torch.Tensor, replacements: torch.Tensor, pad_id: int, generator: torch.Generator
) -> None:
    """Apply one operation to every row that can afford one; ``fits`` [B, 3] says which of the three it can."""
    num_rows, length = canvas.tokens.shape
    device = canvas.tokens.device
    uniform = _uniform((num_rows, 6), generator, device)
    chosen = uniform[:, :3].masked_fill(~fits, -1.0).argmax(-1)
    acts = fits.any(-1)
    deletes, inserts, substitutes = (acts & (chosen == kind) for kind in range(3))
    content = length - canvas.num_pads
    at = (uniform[:, 3] * content).long().clamp_max(length - 1).unsqueeze(-1)
    new = _draw_other(canvas.tokens.gather(-1, at).squeeze(-1), replacements, uniform[:, 4], uniform[:, 5])
    index = torch.arange(length, device=device).expand(num_rows, -1)
    source = index + (deletes.unsqueeze(-1) & (index >= at)).long() - (inserts.unsqueeze(-1) & (index > at)).long()
    moved = canvas.tokens.gather(-1, source.clamp_max(length - 1))
    moved = torch.where(source >= length, pad_id, moved)
    writes = (inserts | substitutes).unsqueeze(-1) & (index == at)
    canvas.tokens = torch.where(writes, new.unsqueeze(-1), moved)
    takes_pad = inserts & (canvas.num_pads > 0)
    canvas.num_edits = canvas.num_edits + acts.long()
    canvas.num_pads = canvas.num_pads + deletes.long() - takes_pad.long()
    canvas.num_dropped = canvas.num_dropped + (inserts & ~takes_pad).long()


def _draw_other(
    current: torch.Tensor, replacements: torch.Tensor, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    """A token of ``replacements`` for each row that is not ``current`` [B]; two uniform numbers [B] decide."""
    num = len(replacements)
    drawn = replacements[(first * num).long().clamp_max(num - 1)]
    # A row that drew its own token takes one of the others.
    distinct = torch.unique(replacements)
    own = torch.searchsorted(distinct, current).clamp_max(len(distinct) - 1)
    others = (own + 1 + (second * (len(distinct) - 1)).long().clamp_max(len(distinct) - 2)) % len(distinct)
    return torch.where(drawn == current, distinct[others], drawn)
