"""What a decoding round is given, in memory that stays where it is: a captured round reads it by address.

A round has a fixed number of rows R. Fewer real rows are followed by padding rows, which see only themselves and
are written behind the real ones, where nothing is committed: they change neither the real rows nor the cache.
Everything travels to the device in one copy. Shape letters: see ``rope.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class RoundInputs:
    """Buffers of a round of ``num_rows`` rows; all attributes are views of one device tensor.

    ``start`` int64 [1]: committed positions, where the rows' keys and values are written. ``ids``, ``positions``
    int64 [R]. ``is_slot``, ``sees_cache`` int64 [R]: 1 for slot rows, 1 for rows that see the committed keys.
    ``among`` int64 [R, R]: 1 where a row (first axis) sees another row of the round.
    """

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.num_rows = num_rows
        self._device = device
        is_cuda = device.type == "cuda"
        size = 1 + num_rows * (4 + num_rows)
        # Pinned memory: a copy from anywhere else would wait for the device.
        self._given = torch.zeros(size, dtype=torch.int64, pin_memory=is_cuda)
        self._held = torch.zeros(size, dtype=torch.int64, device=device)
        self._copied = torch.cuda.Event() if is_cuda else None  # type: ignore[no-untyped-call]
        self.start, self.ids, self.positions, self.is_slot, self.sees_cache, self.among = self._split(self._held)
        self._views = [view.numpy() for view in self._split(self._given)]
        self._offsets = torch.arange(num_rows, device=device)
        self._alone = np.eye(num_rows, dtype=np.int64)
        self._visible: torch.Tensor | None = None  # held, so that no other tensor can take its place in memory
        # Where the best token of each row is brought, on the host.
        self.best = torch.zeros(num_rows, dtype=torch.int64, pin_memory=is_cuda)

    def _split(self, whole: torch.Tensor) -> tuple[torch.Tensor, ...]:
        R = self.num_rows
        start, ids, positions, is_slot, sees_cache, among = torch.split(whole, [1, R, R, R, R, R * R])
        return start, ids, positions, is_slot, sees_cache, among.view(R, R)

    @property
    def num_bytes(self) -> int:
        """Memory held on the device, in bytes."""
        return self._held.numel() * self._held.element_size()

    @property
    def targets(self) -> torch.Tensor:
        """Where in the cache each row's keys and values go, int64 [R]."""
        return self.start + self._offsets

    def fill(
        self,
        start: int,
        ids: Sequence[int],
        positions: Sequence[int],
        visible: torch.Tensor,
        first_slot: int | None,
    ) -> None:
        """Give a round: real rows ``ids`` at ``positions`` behind ``start`` committed ones.

        ``visible`` is bool [T, T] on the CPU, T = ``len(ids)`` at most R, and nobody writes to it afterwards; rows from
        ``first_slot`` on are slots.
        """
        num_real, R = len(ids), self.num_rows
        assert 0 < num_real <= R
        if self._copied is not None:
            self._copied.synchronize()  # the last copy has read the pinned memory
        to_start, to_ids, to_positions, to_slot, to_sees, to_among = self._views
        to_start[0] = start
        to_ids[:num_real], to_ids[num_real:] = ids, 0
        to_positions[:num_real], to_positions[num_real:] = positions, positions[-1]
        to_slot[:] = 0
        if first_slot is not None:
            to_slot[first_slot:num_real] = 1
        to_sees[:num_real], to_sees[num_real:] = 1, 0
        if visible is not self._visible:  # the masks of rounds are kept (`round_mask`): the same one is there already
            to_among[:] = self._alone
            to_among[:num_real, :num_real] = visible.numpy()
            self._visible = visible
        self._held.copy_(self._given, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))

    def visibility(self, num_keys: int) -> torch.Tensor:
        """Bool [R, ``num_keys``]: what each row sees of the cache's first keys; computed where the inputs are."""
        relative = torch.arange(num_keys, device=self.start.device) - self.start
        inside = (relative >= 0) & (relative < self.num_rows)
        among = self.among.index_select(1, relative.clamp(0, self.num_rows - 1))
        committed = (relative < 0) & (self.sees_cache[:, None] == 1)
        return torch.where(inside, among == 1, committed)
