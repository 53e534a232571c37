"""Levenshtein distance of token sequences, many pairs at a time."""

from __future__ import annotations

import torch

from diffusion_core.errors import InvalidRequest


def levenshtein(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Fewest deletions, insertions and substitutions that turn ``a`` [..., L] into ``b`` [..., M]: int64 [...].

    Paper, section 3.1: d_Lev. The leading axes broadcast. O(L M) work in O(L) tensor operations: inside a row of the
    table the chain of insertions is a running minimum of ``cell - column``.

    Raises:
        InvalidRequest: the leading axes do not fit each other.
    """
    try:
        batch = (a.new_zeros(a.shape[:-1]) + b.new_zeros(b.shape[:-1])).shape
    except RuntimeError:
        raise InvalidRequest(f"sequences of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be paired") from None
    columns = torch.arange(b.shape[-1] + 1, device=b.device)
    row = columns.expand(*batch, -1)
    for i in range(a.shape[-1]):
        differs = (b != a[..., i : i + 1]).long()
        above = row[..., 1:] + 1
        diagonal = row[..., :-1] + differs
        first = torch.full((*batch, 1), i + 1, dtype=torch.long, device=b.device)
        cells = torch.cat((first, torch.minimum(above, diagonal)), dim=-1)
        row = (cells - columns).cummin(-1).values + columns
    return row[..., -1]
