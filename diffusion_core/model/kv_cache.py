"""Keys and values of one sequence: a committed part that never changes and a draft area behind it.

A forward writes the keys and values of its rows behind the committed ones. Only :meth:`KVCache.commit` makes the
first rows permanent; everything else is overwritten by the next forward. Rejecting a draft is therefore free.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import torch

from diffusion_core.model.config import ModelConfig

# Attention always runs over a multiple of this many keys, so that a row's sum is split the same way whatever else
# rides along in its forward (decoding.md section 6: `verified` = `autoregressive`, token for token).
KEY_BUCKET = 128

# Up to this many rows a forward belongs to decoding, where a row's result must not depend on its company.
MAX_DECODE_ROWS = 96


def round_up(n: int, step: int) -> int:
    """The smallest multiple of ``step`` that is at least ``n``."""
    return -(-n // step) * step


def equal_spans(visible: torch.Tensor) -> tuple[tuple[int, int, int], ...]:
    """Runs of rows that need the same number of keys, (start, stop, keys), from a round's mask bool [T, S].

    A row needs the keys up to the last one it sees, rounded up to :data:`KEY_BUCKET`; that depends on its own place
    only, not on the rows behind it.
    """
    num_keys = visible.shape[1]
    last = num_keys - visible.flip(1).int().argmax(1)
    needed = [min(round_up(n, KEY_BUCKET), num_keys) for n in last.tolist()]
    bounds = [0, *(i for i in range(1, len(needed)) if needed[i] != needed[i - 1]), len(needed)]
    return tuple((start, stop, needed[start]) for start, stop in pairwise(bounds))


def with_cache(visible: torch.Tensor, num_cached: int) -> torch.Tensor:
    """Extend the mask [T, T] by ``num_cached`` committed keys that all rows see and by padding that none sees.

    Returns bool [T, S], S = ``num_cached + T`` rounded up to the cache's key bucket; of [1, T] (all rows see the same)
    [1, S].
    """
    num_rows, num_new = visible.shape
    full = torch.zeros(num_rows, round_up(num_cached + num_new, KEY_BUCKET), dtype=torch.bool, device=visible.device)
    full[:, :num_cached] = True
    full[:, num_cached : num_cached + num_new] = visible
    return full


class ContextKeys(Protocol):
    """Keys and values that the rows of a forward see besides their own."""

    @property
    def length(self) -> int:
        """Positions that every forward sees."""
        ...

    def reserve(self, capacity: int) -> None:
        """Make room for ``capacity`` positions."""
        ...

    def widen(self, visible: torch.Tensor) -> torch.Tensor:
        """The mask over all keys that :meth:`write` returns, from the mask that the caller gave."""
        ...

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the rows' keys and values behind the context's; all of them are returned, [B, K, S, Dh]."""
        ...


class FixedContext:
    """Clean keys and values that never change: the context of slots in training.

    Nothing is written in place, so that gradients flow into the rows' own keys and values. The caller's mask speaks
    of all keys, [B, T, C + T]: rows of one forward are slots of many blocks, each with a context of its own length.
    """

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor]) -> None:
        self._keys, self._values = keys, values

    @property
    def length(self) -> int:
        """Clean positions C."""
        return self._keys[0].shape[2]

    def convert(self, dtype: torch.dtype) -> FixedContext:
        """The same in another dtype."""
        return FixedContext([keys.to(dtype) for keys in self._keys], [values.to(dtype) for values in self._values])

    def at(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer, each [B, K, C, Dh]."""
        return self._keys[layer], self._values[layer]

    def reserve(self, capacity: int) -> None:
        """Nothing to do: the rows' keys are joined to the context's, not stored."""

    def widen(self, visible: torch.Tensor) -> torch.Tensor:
        """The mask is wide already."""
        return visible

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Context and rows, each [B, K, C + T, Dh]."""
        return torch.cat((self._keys[layer], keys), dim=2), torch.cat((self._values[layer], values), dim=2)


class KVCache:
    """Keys and values of every layer: ``keys[layer]``, ``values[layer]`` are [B, K, capacity, Dh].

    ``length`` is the number of committed positions; index and absolute position of a committed token are the same.
    Memory is the cache's own, or a part of somebody else's that it lives in for a while (:meth:`move_into`).
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        num_sequences: int = 1,
        num_layers: int | None = None,
    ) -> None:
        self._config = config
        self._num_layers = config.num_layers if num_layers is None else num_layers
        # Zeros, not empty memory: a masked key still enters `0 * value`, and 0 * NaN is NaN.
        shape = (
            2 * self._num_layers,
            num_sequences,
            config.num_kv_heads,
            round_up(capacity, KEY_BUCKET),
            config.head_dim,
        )
        self._store = torch.zeros(shape, dtype=dtype, device=device)
        self._host: torch.Tensor | None = None
        self._own_capacity = int(self._store.shape[3])
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions that fit, committed and draft together."""
        return int(self._store.shape[3])

    @property
    def memory(self) -> torch.Tensor:
        """Where keys and values are until the next :meth:`reserve`: [2 * layers, B, K, capacity, Dh]."""
        return self._store

    @property
    def num_bytes(self) -> int:
        """Memory held, in bytes; of a cache that lives elsewhere what it will hold when it has moved out."""
        parts, sequences, heads, capacity, size = self._store.shape
        positions = capacity if self._host is None else max(self._own_capacity, self.length)
        return parts * sequences * heads * positions * size * self._store.element_size()

    def lives_in(self, memory: torch.Tensor) -> bool:
        """Whether keys and values are in ``memory``."""
        return self._host is memory

    def move_into(self, memory: torch.Tensor, capacity: int) -> None:
        """Live in the first ``capacity`` positions of ``memory`` [2 * layers, B, K, any, Dh] from now on.

        What is committed is copied there. The owner of ``memory`` calls :meth:`move_out` before it lends it again.
        """
        assert capacity >= self.length
        view = memory[:, :, :, :capacity]
        if self._host is not memory:
            view[:, :, :, : self.length] = self._store[:, :, :, : self.length]
            self._own_capacity = self.capacity
        self._store, self._host = view, memory

    def move_out(self) -> None:
        """Take memory of one's own again, as much as before :meth:`move_into` or as is needed by now."""
        if self._host is not None:
            self._move(max(self._own_capacity, round_up(self.length, KEY_BUCKET)))

    def _move(self, capacity: int) -> None:
        """Own memory of ``capacity`` positions with what is committed in it."""
        shape = list(self._store.shape)
        shape[3] = capacity
        moved = torch.zeros(shape, dtype=self._store.dtype, device=self._store.device)
        moved[:, :, :, : self.length] = self._store[:, :, :, : self.length]
        self._store, self._host = moved, None

    def reserve(self, capacity: int) -> None:
        """Make room for ``capacity`` positions; what is committed is kept."""
        if capacity <= self.capacity:
            return
        # Grow by at least a half: a long answer must not copy the cache at every block.
        self._move(round_up(max(capacity, self.capacity * 3 // 2), KEY_BUCKET))

    def widen(self, visible: torch.Tensor) -> torch.Tensor:
        """Bool [T, S]: ``visible`` [T, T], all committed keys, and none of the padding."""
        return with_cache(visible, self.length)

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put ``keys``, ``values`` [B, K, T, Dh] behind the committed ones; returns all keys and values [B, K, S, Dh].

        S is ``length + T`` rounded up to :data:`KEY_BUCKET`; the rows behind ``length + T`` must be masked.
        """
        end = self.length + keys.shape[2]
        padded = round_up(end, KEY_BUCKET)
        stored_keys, stored_values = self._store[2 * layer], self._store[2 * layer + 1]
        stored_keys[:, :, self.length : end] = keys
        stored_values[:, :, self.length : end] = values
        return stored_keys[:, :, :padded], stored_values[:, :, :padded]

    def commit(self, num_rows: int) -> None:
        """Keep the first ``num_rows`` rows of the last forward."""
        assert 0 <= num_rows <= self.capacity - self.length
        self.length += num_rows

    def crop(self, length: int) -> None:
        """Forget the committed positions from ``length`` on."""
        assert 0 <= length <= self.length
        self.length = length

    def copy(self, length: int, capacity: int) -> KVCache:
        """A new cache with the first ``length`` committed positions and room for ``capacity``."""
        other = KVCache(
            self._config,
            capacity=max(capacity, length),
            dtype=self._store.dtype,
            device=self._store.device,
            num_sequences=int(self._store.shape[1]),
            num_layers=self._num_layers,
        )
        other._store[:, :, :, :length] = self._store[:, :, :, :length]
        other.length = length
        return other

    def committed(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Committed keys and values of a layer, each [B, K, length, Dh]."""
        return self._store[2 * layer][:, :, : self.length], self._store[2 * layer + 1][:, :, : self.length]
