"""Where the rows of one sequence are in a forward that several share (``together.py``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.tiles import TiledSpan


@dataclass(frozen=True, slots=True)
class Part:
    """Rows from ``clean[0]`` to ``clean[1]`` and from ``slots[0]`` to ``slots[1]``; ``spans`` count them as one run."""

    cache: KVCache
    clean: tuple[int, int]
    slots: tuple[int, int]
    spans: tuple[TiledSpan, ...]

    def take(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """The part's rows of ``x``, which has all rows along ``dim``."""
        clean = x.narrow(dim, self.clean[0], self.clean[1] - self.clean[0])
        num_slots = self.slots[1] - self.slots[0]
        return clean if not num_slots else torch.cat((clean, x.narrow(dim, self.slots[0], num_slots)), dim)

    def put(self, x: torch.Tensor, rows: torch.Tensor) -> None:
        """Write the part's ``rows`` [1, T, ...] to their places in ``x`` [1, all rows, ...]."""
        num_clean = self.clean[1] - self.clean[0]
        x[:, self.clean[0] : self.clean[1]] = rows[:, :num_clean]
        x[:, self.slots[0] : self.slots[1]] = rows[:, num_clean:]
