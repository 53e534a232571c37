"""How a whole round as one kernel (``kernels/cuda``) is cut for a model and a device, and what it takes.

The numbers are constants of the compilation; ``shape.cuh`` counts the same and says so if it does not.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace

from diffusion_core.model.config import ModelConfig

WARPS = 8
THREADS = 32 * WARPS
# Steps of 16 values that a warp keeps of every row, in registers.
MOST_STEPS = 12
PARTS = 13  # addresses of a layer
SLICES = (1, 2, 4, 8)
MOST_TOGETHER = 5
ROW_BUCKETS = (16, 32, 64)
PASS_ROWS = 32


@dataclass(frozen=True, slots=True)
class KernelShape:
    """Names as in ``shape.cuh``; ``rank`` is the adapter's, 0 without one; ``blocks`` one for each multiprocessor."""

    rows: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    rank: int
    blocks: int
    slices: int = 1
    tiles_together: int = MOST_TOGETHER
    fused_head: bool = True
    timed_block: int = -1  # for measurements: the block that notes its clock; -1: none

    @property
    def rank_tiles(self) -> int:
        """Tiles of 16 results of an adapter's way down."""
        return self.rank // 16

    @property
    def columns(self) -> int:
        """Tiles of eight rows that are worked on at a time."""
        return min(self.rows, PASS_ROWS) // 8

    def _products(self) -> Iterator[tuple[int, int, int]]:
        """Tiles of 16 results, steps of 16 values and slices of a layer's four products."""
        attended = self.heads * self.head_dim
        yield (self.heads + 2 * self.kv_heads) * self.head_dim // 16, self.hidden // 16, 1
        yield self.hidden // 16, attended // 16, 1
        yield self.inner // 8, self.hidden // 16, 1
        yield self.hidden // 16, self.inner // 16, self.slices

    @property
    def own_tiles(self) -> list[int]:
        """Tiles of a block, at most, by product."""
        return [_divide_up(tiles, self.blocks // slices) for tiles, _, slices in self._products()]

    @property
    def most_steps(self) -> int:
        """Steps of a warp in the longest product."""
        return max(_divide_up(_divide_up(steps, slices), WARPS) for _, steps, slices in self._products())

    @property
    def shared_bytes(self) -> int:
        """A block's own memory."""
        own, rows = max(self.own_tiles), self.rows
        units = (min(own, self.tiles_together) + self.rank_tiles) * self.columns
        parts, mixed = units * WARPS * 32 * 16, WARPS * 16 * (self.head_dim + 6) * 4
        hidden = (rows if self.fused_head else 1) * (self.hidden + 32) * 2
        sizes = (
            _divide_up(max(parts, mixed, hidden), 16) * 16, max(1, own * self.rank_tiles * 32) * 16,
            max(1, self.rank_tiles * self.columns * 32) * 8, self.layers * PARTS * 8, 2 * rows * 8,
            2 * rows * self.head_dim * 2, WARPS * min(rows, PASS_ROWS) * 4, (6 * rows + 3) * 4,
        )  # fmt: skip
        return _divide_up(sum(sizes), 16) * 16

    @property
    def parts_floats(self) -> int:
        """Numbers that the slices of the last product leave for each other, at least 1."""
        groups, passes = self.blocks // self.slices, max(1, self.rows // PASS_ROWS)
        units = (self.own_tiles[-1] + self.rank_tiles) * self.columns
        return passes * groups * self.slices * units * 32 * 4

    @property
    def query_values(self) -> int:
        """Values of all queries, with room for the last tile of each key-value head."""
        return self.kv_heads * (self.rows * self.heads // self.kv_heads + 16) * self.head_dim

    @property
    def num_clocks(self) -> int:
        """Readings of the clock: four for each of a layer's five steps, and some before and behind."""
        return 4 * (5 * self.layers + 2)

    @property
    def num_counters(self) -> int:
        """The grid's barrier, one for each group of slices, the head's."""
        return 2 + self.blocks // self.slices

    def defines(self) -> dict[str, int]:
        """The constants of the compilation."""
        return {
            "ROWS": self.rows, "HIDDEN": self.hidden, "INNER": self.inner, "HEADS": self.heads,
            "KV_HEADS": self.kv_heads, "HEAD_DIM": self.head_dim, "LAYERS": self.layers, "RANK": self.rank,
            "BLOCKS": self.blocks, "SLICES": self.slices, "TILES_TOGETHER": self.tiles_together,
            "SHARED_BYTES": self.shared_bytes, "FUSED_HEAD": int(self.fused_head),
            "TIMED": self.timed_block + 1,
        }  # fmt: skip


def choose_shapes(config: ModelConfig, *, rank: int, blocks: int, shared_limit: int) -> dict[int, KernelShape]:
    """The cuts by number of rows, with an adapter of ``rank``; empty where the kernel cannot work with that model.

    ``blocks`` is the device's number of multiprocessors, ``shared_limit`` the memory that a block can have, in bytes.
    They agree in whatever decides the order of a sum, so that rows have the same bits in all of them, and in where the
    best tokens are taken.
    """
    if config.head_dim not in (64, 128) or config.qk_norm or config.num_heads // config.num_kv_heads > 16:
        return {}
    if any(size % 16 for size in (config.hidden_size, config.intermediate_size)):
        return {}
    whole = KernelShape(
        ROW_BUCKETS[-1], config.hidden_size, config.intermediate_size, config.num_heads, config.num_kv_heads,
        config.head_dim, config.num_layers, _divide_up(rank, 16) * 16, blocks,
    )  # fmt: skip
    cuts = [replace(whole, slices=slices) for slices in SLICES if slices <= blocks]
    cuts = [cut for cut in cuts if cut.most_steps <= MOST_STEPS]
    if not cuts:
        return {}
    # The work of a block: its tiles, those of the adapter among them, times the values of each.
    best = min(cuts, key=lambda cut: (cut.own_tiles[-1] + cut.rank_tiles) * _divide_up(cut.inner, cut.slices))
    for fused in (True, False) if config.hidden_size % 32 == 0 else (False,):
        found = {rows: _fit(replace(best, rows=rows, fused_head=fused), shared_limit) for rows in ROW_BUCKETS}
        if all(found.values()):
            return {rows: shape for rows, shape in found.items() if shape is not None}
    return {}


def _fit(shape: KernelShape, shared_limit: int) -> KernelShape | None:
    """``shape`` with as many tiles together as there is room for."""
    cuts = (replace(shape, tiles_together=number) for number in range(MOST_TOGETHER, 0, -1))
    return next((cut for cut in cuts if cut.shared_bytes <= shared_limit), None)


def _divide_up(a: int, b: int) -> int:
    return -(-a // b)


class Arguments(ctypes.Structure):
    """As in ``shape.cuh``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "table", "embedding", "mask_embedding", "final_norm", "cosines", "sines", "inputs", "stream", "queries",
            "attended", "inner", "parts", "hidden", "counters", "head", "ranks", "best", "clocks",
        )),
        ("mask_id", ctypes.c_longlong),
        ("num_tokens", ctypes.c_int), ("eps", ctypes.c_float), ("adapter_scale", ctypes.c_float),
        ("attention_scale", ctypes.c_float),
    ]  # fmt: skip
