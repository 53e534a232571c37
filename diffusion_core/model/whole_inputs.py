"""What a round as one kernel is given: rows of one or more sequences, each with keys and values of its own.

Everything travels to the device in one copy, to memory that stays where it is. The order of the fields is that of
``shape.cuh``: what rounds of a pattern have in common stands together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from diffusion_core.model.together import SequenceRows

FIELDS = 10
TILE = 16
# Patterns are kept by their masks, which whoever makes rounds keeps.
_MOST_PATTERNS = 256


class _Pattern(NamedTuple):
    """What rounds with the same mask have in common: fields 5 to 7 of its T rows, and where its tiles begin.

    The mask is held: no other one can take its place in memory.
    """

    visible: torch.Tensor
    rows: npt.NDArray[np.int64]  # [3, T]
    tiles: npt.NDArray[np.int64]


class WholeInputs:
    """Inputs of a round of ``num_rows`` rows, of a model in which ``group`` query heads share keys.

    ``held`` int64 [10 * R + 1] is on the device, where :meth:`send` brings what :meth:`fill` has written. Rows that no
    sequence has are told apart by where they begin.
    """

    def __init__(self, num_rows: int, group: int, device: torch.device) -> None:
        self.num_rows = num_rows
        self._group = group
        is_cuda = device.type == "cuda"
        size = FIELDS * num_rows + 1
        # Pinned memory: a copy from anywhere else would wait for the device.
        self._given = torch.zeros(size, dtype=torch.int64, pin_memory=is_cuda)
        self.held = torch.zeros(size, dtype=torch.int64, device=device)
        # Where the best token of each row is brought, on the host.
        self.best = torch.zeros(num_rows, dtype=torch.int64, pin_memory=is_cuda)
        # That what was sent between two rounds has arrived; None where it has.
        self._arrived: torch.cuda.Event | None = None
        self._whole = self._given.numpy()
        self._fields = self._whole[:-1].reshape(FIELDS, num_rows)
        self._patterns: dict[tuple[int, int], _Pattern] = {}

    @property
    def num_bytes(self) -> int:
        """Memory held on the device, in bytes."""
        return self.held.numel() * self.held.element_size()

    def fill(self, sequences: Sequence[SequenceRows]) -> None:
        """Give a round: the rows of ``sequences``, one after the other, at most R in all.

        Their caches have room for them, and stay where they are until the round has run. What was sent within a round
        before has arrived.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        fields = self._fields
        ids, positions, starts, memories, capacities = fields[:5]
        row = tile = 0
        for rows in sequences:
            end, cache = row + len(rows.tokens), rows.cache
            pattern = self._patterns.get((id(rows.visible), rows.num_clean)) or self._pattern_of(rows)
            ids[row:end], positions[row:end] = rows.tokens, rows.positions
            starts[row:end], memories[row:end], capacities[row:end] = (
                cache.length,
                cache.memory.data_ptr(),
                cache.capacity,
            )
            fields[5:8, row:end] = pattern.rows
            last_tile = tile + len(pattern.tiles)
            fields[8, tile:last_tile], fields[9, tile:last_tile] = pattern.tiles + row * self._group, end * self._group
            row, tile = end, last_tile
        assert 0 < row <= self.num_rows
        ids[row:], positions[row:], starts[row:], fields[5, row:] = 0, 0, -1, 0
        self._whole[-1] = tile

    def send(self) -> None:
        """Bring what was given to the device, in the order of its work: a part of a round that is waited for."""
        self.held.copy_(self._given, non_blocking=True)

    def send_ahead(self) -> None:
        """As :meth:`send`, for rounds that nobody waits for: the next may be given as soon as this has arrived."""
        self.send()
        if self.held.is_cuda:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(self.held.device))

    def _pattern_of(self, rows: SequenceRows) -> _Pattern:
        size = len(rows.tokens)
        wide = np.zeros((size, 64), dtype=bool)
        wide[:, :size] = rows.visible.numpy()
        # Of each row one number: bit j is whether it sees row j.
        among = np.packbits(wide, axis=1, bitorder="little").view("<i8")[:, 0]
        places = np.arange(size)
        tiles = np.arange(0, size * self._group, TILE)
        pattern = _Pattern(rows.visible, np.stack((places >= rows.num_clean, places, among)), tiles)
        if len(self._patterns) >= _MOST_PATTERNS:
            self._patterns.clear()
        self._patterns[id(rows.visible), rows.num_clean] = pattern
        return pattern
