"""What a round as one kernel is given: rows of one or more sequences, each with keys and values of its own.

Everything travels to the device in one copy, to memory that stays where it is. The order is that of ``shape.cuh``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from diffusion_core.model.together import SequenceRows

FIELDS = 10
TILE = 16
# Masks of rounds are kept by whoever makes them; their bits are kept here, for as many.
_MOST_MASKS = 256


class WholeInputs:
    """Inputs of a round of ``num_rows`` rows, of a model in which ``group`` query heads share keys.

    ``held`` int64 [10 * R + 1] is on the device. Rows that no sequence has are told apart by where they begin.
    """

    def __init__(self, num_rows: int, group: int, device: torch.device) -> None:
        self.num_rows = num_rows
        self._group, self._device = group, device
        is_cuda = device.type == "cuda"
        size = FIELDS * num_rows + 1
        # Pinned memory: a copy from anywhere else would wait for the device.
        self._given = torch.zeros(size, dtype=torch.int64, pin_memory=is_cuda)
        self.held = torch.zeros(size, dtype=torch.int64, device=device)
        # Where the best token of each row is brought, on the host.
        self.best = torch.zeros(num_rows, dtype=torch.int64, pin_memory=is_cuda)
        self._copied = torch.cuda.Event() if is_cuda else None  # type: ignore[no-untyped-call]
        self._whole = self._given.numpy()
        self._fields = self._whole[:-1].reshape(FIELDS, num_rows)
        self._masks: dict[int, tuple[torch.Tensor, npt.NDArray[np.int64]]] = {}

    @property
    def num_bytes(self) -> int:
        """Memory held on the device, in bytes."""
        return self.held.numel() * self.held.element_size()

    def fill(self, sequences: Sequence[SequenceRows]) -> None:
        """Give a round: the rows of ``sequences``, one after the other, at most R in all.

        Their caches have room for them, and stay where they are until the round has run.
        """
        if self._copied is not None:
            self._copied.synchronize()  # the last copy has read the pinned memory
        ids, positions, is_slot, starts, places, memories, capacities, among, firsts, ends = self._fields
        row = tile = 0
        for rows in sequences:
            end = row + len(rows.tokens)
            ids[row:end], positions[row:end] = rows.tokens, rows.positions
            is_slot[row : row + rows.num_clean], is_slot[row + rows.num_clean : end] = 0, 1
            starts[row:end], places[row:end] = rows.cache.length, np.arange(end - row)
            memories[row:end], capacities[row:end] = rows.cache.memory.data_ptr(), rows.cache.capacity
            among[row:end] = self._bits_of(rows.visible)
            first, last = row * self._group, end * self._group
            num_tiles = -(-(last - first) // TILE)
            firsts[tile : tile + num_tiles], ends[tile : tile + num_tiles] = range(first, last, TILE), last
            row, tile = end, tile + num_tiles
        assert 0 < row <= self.num_rows
        ids[row:], positions[row:], is_slot[row:], starts[row:] = 0, 0, 0, -1
        self._whole[-1] = tile
        self.held.copy_(self._given, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))

    def _bits_of(self, visible: torch.Tensor) -> npt.NDArray[np.int64]:
        """Of each row of ``visible`` bool [T, T] one number: bit j is whether it sees row j."""
        kept = self._masks.get(id(visible))
        if kept is not None:
            return kept[1]
        wide = np.zeros((len(visible), 64), dtype=bool)
        wide[:, : len(visible)] = visible.numpy()
        bits = np.packbits(wide, axis=1, bitorder="little").view("<i8")[:, 0]
        if len(self._masks) >= _MOST_MASKS:
            self._masks.clear()
        self._masks[id(visible)] = visible, bits  # held, so that no other mask can take its place in memory
        return bits
