"""Decoding rounds with static shapes and static memory, on CUDA captured once and replayed.

A forward of a few rows is hundreds of small kernels; launched one by one they take many times as long as the device
needs for them. A captured round is launched whole. For that all its memory stays in one place: inputs
(``round_inputs.py``), and keys and values, which live in one piece of memory while their sequence decodes. The number
of rows and the length of that memory come in buckets; a graph is captured for each pair when it is first needed.
Without CUDA the same round runs uncaptured: the logic is one, and tests hold it to the reference.

``exact`` rounds all have the same number of rows. Matrix kernels are chosen by the number of rows, so a row's bits
would otherwise change with its company, and `verified` would not be `autoregressive` (DECISIONS 1). Within one
captured round the kernel is one and the same, and treats all its rows alike.
"""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import torch

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.graphs import Meanwhile, Recorder
from diffusion_core.model.kv_cache import KEY_BUCKET, KVCache, round_up
from diffusion_core.model.masks import causal
from diffusion_core.model.round_body import evaluate_round
from diffusion_core.model.round_inputs import RoundInputs
from diffusion_core.model.round_ops import PlainOps, RoundOps
from diffusion_core.model.transformer import Transformer

# How far fused steps may be from the reference, as a share of its length.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}

logger = logging.getLogger(__name__)

ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
# All rows of an exact round: what a long draft or the slots behind several drafts need. Up to this many rows a
# product of the sizes in question takes as long as its weights take to be read.
EXACT_ROWS = 64
# Fewer rows, where a device gives them the very bits that they have among `EXACT_ROWS` (found out, not assumed). Slots
# behind every length of a block of 4 fit into 32, and every other kernel has half as much to do.
FEWER_ROWS = (16, 32)

CAPACITY_BUCKETS = (512, 1024, 2048, 4096)

# Captured rounds kept at a time; the least recently used goes first. Each holds its kernels' parameters.
MAX_CAPTURED = 32


@dataclass(frozen=True, slots=True)
class RoundOutputs:
    """``hidden`` [T, D] and one [T, D] per tap; ``best`` int64 on the host, or None where it was not asked for.

    ``best`` is of all R rows of the round, those without meaning behind the T real ones included.
    """

    hidden: torch.Tensor
    tapped: list[torch.Tensor]
    best: torch.Tensor | None = None


class _Shape(NamedTuple):
    rows: int
    capacity: int
    has_slots: bool
    chooses: bool


@dataclass(slots=True)
class _Round:
    """A round of one shape: ``run`` evaluates it, ``outputs`` is where the results are (None: where ``run`` puts them).

    ``num_bytes`` is what capturing it took.
    """

    run: Callable[[], RoundOutputs | None]
    outputs: RoundOutputs | None = None
    num_bytes: int = 0


def largest_capacity(max_positions: int) -> int:
    """Positions that the memory of keys and values has for sequences that are bounded so, with their drafts."""
    return round_up(max_positions + EXACT_ROWS, KEY_BUCKET)


class CapturedForward:
    """Evaluates the rounds of one model, whatever sequences they belong to; one thread at a time.

    ``max_positions`` bounds a sequence with its draft. ``taps`` are those of :meth:`Transformer.forward`, wanted of
    every round. ``ops`` other than the reference are compared with it once.
    """

    can_share = False  # a round is one sequence's

    def __init__(
        self,
        model: Transformer,
        adapter: GatedAdapter | None = None,
        *,
        max_positions: int,
        taps: Sequence[int] = (),
        exact: bool = True,
        ops: RoundOps | None = None,
    ) -> None:
        self._model, self._adapter, self._taps = model, adapter, tuple(taps)
        self._ops: RoundOps = ops or PlainOps()
        self._is_checked = type(self._ops) is PlainOps
        self.row_buckets: tuple[int, ...] = (EXACT_ROWS,) if exact else ROW_BUCKETS
        self._is_exact = exact
        largest = largest_capacity(max_positions)
        self.capacities = (*(c for c in CAPACITY_BUCKETS if 2 * c <= largest), largest)
        self._memory: torch.Tensor | None = None
        self._lodger: weakref.ref[KVCache] | None = None
        self._inputs: dict[int, RoundInputs] = {}
        self._rounds: OrderedDict[_Shape, _Round] = OrderedDict()
        self.meanwhile = Meanwhile()
        self._recorder = Recorder(model.device)

    @property
    def max_rows(self) -> int:
        """The most real rows of a round."""
        return self.row_buckets[-1]

    @property
    def num_captured(self) -> int:
        """Rounds that are ready to be replayed."""
        return len(self._rounds)

    @property
    def num_bytes(self) -> int:
        """Memory held on the device, in bytes: keys and values, inputs, captured rounds."""
        memory = self._memory.numel() * self._memory.element_size() if self._memory is not None else 0
        inputs = sum(held.num_bytes for held in self._inputs.values())
        return memory + inputs + sum(made.num_bytes for made in self._rounds.values())

    def rows_for(self, num_rows: int) -> int:
        """The smallest bucket that holds ``num_rows`` rows."""
        for bucket in self.row_buckets:
            if bucket >= num_rows:
                return bucket
        raise ValueError(f"a round has at most {self.max_rows} rows, not {num_rows}")

    def fits(self, cache: KVCache, num_rows: int) -> bool:
        """Whether a round of ``num_rows`` rows behind ``cache`` is one for :meth:`evaluate`."""
        return num_rows <= self.max_rows and cache.length + self.rows_for(num_rows) <= self.capacities[-1]

    def rows_to_score(self, num_rows: int) -> int:
        """Rows that the output head is given where it is asked apart from a round."""
        return self.max_rows if self._is_exact else self.rows_for(num_rows)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Make the rounds that requests need now: compiling and capturing them is no wait for a request."""
        if self._is_exact:
            self.row_buckets = (EXACT_ROWS,)
            self.row_buckets = (*(rows for rows in FEWER_ROWS if self._gives_equal_bits(rows)), EXACT_ROWS)
        buckets = self.row_buckets if self._is_exact else (self.max_rows,)
        kinds = (None, 0) if self._adapter is not None else (None,)
        for rows, capacity, first_slot in product(buckets, self.capacities, kinds):
            self.evaluate(
                self._new_cache(capacity - rows), [0] * rows, range(rows), causal(rows), first_slot, chooses=True
            )

    def _new_cache(self, capacity: int) -> KVCache:
        model = self._model
        return KVCache(model.config, capacity=capacity, dtype=model.dtype, device=model.device)

    def _gives_equal_bits(self, num_rows: int) -> bool:
        """Whether rounds of ``num_rows`` rows give those rows the bits that rounds of the most rows give them.

        Kernels sum in an order of their own for a number of rows, whatever the values: where a few random rows agree
        in every bit through all layers and the output head, the order is the same.
        """
        generator = torch.Generator().manual_seed(0)
        committed, rows = self.max_rows, range(self.max_rows, self.max_rows + num_rows)
        vocab_size = self._model.config.vocab_size
        ids: list[int] = torch.randint(0, vocab_size, (committed + num_rows,), generator=generator).tolist()
        cache, whole = self._new_cache(self.capacities[0] - committed), self.row_buckets
        self.evaluate(cache, ids[:committed], range(committed), causal(committed))
        cache.commit(committed)
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        for buckets in (whole, (num_rows, *whole)):
            self.row_buckets = buckets
            for first_slot in (None, num_rows // 2) if self._adapter is not None else (None,):
                outputs = self.evaluate(cache, ids[committed:], rows, causal(num_rows), first_slot, chooses=True)
                hidden = outputs.hidden.clone()
                padded = torch.cat((hidden, hidden[:1].expand(buckets[0] - num_rows, -1)))
                found.append((hidden, self._model.scores(padded)[:num_rows]))
        self.row_buckets = whole
        half = len(found) // 2
        return all(
            torch.equal(one, other)
            for pair in zip(found[:half], found[half:], strict=True)
            for one, other in zip(*pair, strict=True)
        )

    def evaluate(
        self,
        cache: KVCache,
        ids: Sequence[int],
        positions: Sequence[int],
        visible: torch.Tensor,
        first_slot: int | None = None,
        *,
        chooses: bool = False,
    ) -> RoundOutputs:
        """Hidden states [T, D] of the rows ``ids`` [T] and one [T, D] per tap, valid until the next round.

        ``visible`` is bool [T, T] on the CPU; every row sees all committed keys. The rows' own keys and values are
        written behind them, as :meth:`Transformer.forward` does; committing them is the caller's. With ``chooses``
        the round also takes each row's best token and brings all of them to the host, which is :meth:`wait`-ed for.
        """
        n = len(ids)
        assert self.fits(cache, n), "the caller asks first"
        rows = self.rows_for(n)
        inputs, memory = self._inputs.get(rows), self._memory
        if inputs is None or memory is None:
            inputs, memory = self._make_room(rows)
        capacity = self._lodge(cache, memory, rows)
        inputs.fill(cache.length, ids, positions, visible, first_slot)
        made = self._round_of(_Shape(rows, capacity, self._adapts(first_slot), chooses))
        outputs = made.run() or made.outputs
        assert outputs is not None
        self.meanwhile.do()
        return RoundOutputs(outputs.hidden[:n], [x[:n] for x in outputs.tapped], outputs.best)

    def _make_room(self, rows: int) -> tuple[RoundInputs, torch.Tensor]:
        """Memory for the inputs of rounds of ``rows`` rows, and for keys and values, where there is none yet."""
        with torch.inference_mode(False):  # memory that may be written to in either mode
            if rows not in self._inputs:
                self._inputs[rows] = RoundInputs(rows, self._model.device)
            if self._memory is None:
                config = self._model.config
                shape = (2 * config.num_layers, 1, config.num_kv_heads, self.capacities[-1], config.head_dim)
                self._memory = torch.zeros(shape, dtype=self._model.dtype, device=self._model.device)
        return self._inputs[rows], self._memory

    def _adapts(self, first_slot: int | None) -> bool:
        """Whether a round is one that adapts slots; fused kernels are the same ones for all rounds of a model."""
        if self._adapter is None:
            return False
        return first_slot is not None or type(self._ops) is not PlainOps

    def wait(self) -> None:
        """Until what the last round brings to the host is there."""
        memory = self._memory
        if memory is not None and memory.is_cuda:
            torch.cuda.current_stream(memory.device).synchronize()

    def _lodge(self, cache: KVCache, memory: torch.Tensor, rows: int) -> int:
        """Let ``cache`` live in our ``memory``; its capacity there."""
        held = cache.capacity
        if cache.lives_in(memory) and held in self.capacities and held >= cache.length + rows:
            return held  # as in most rounds
        wanted = max(held, cache.length + rows)
        # What is larger than the largest bucket has room that it does not use.
        capacity = next((c for c in self.capacities if c >= wanted), self.capacities[-1])
        if not cache.lives_in(memory) or held != capacity:
            lodger = self._lodger() if self._lodger is not None else None
            if lodger is not None and lodger is not cache and lodger.lives_in(memory):
                lodger.move_out()
            cache.move_into(memory, capacity)
            self._lodger = weakref.ref(cache)
        return capacity

    def _round_of(self, shape: _Shape) -> _Round:
        """The round of that shape; captured now if it is new."""
        made = self._rounds.get(shape)
        if made is None:
            made = self._rounds[shape] = self._make(shape)
            if len(self._rounds) > MAX_CAPTURED:
                self._rounds.popitem(last=False)
        self._rounds.move_to_end(shape)
        return made

    def _make(self, shape: _Shape) -> _Round:
        memory, inputs = self._memory, self._inputs[shape.rows]
        assert memory is not None
        view, adapter = memory[:, :, :, : shape.capacity], self._adapter if shape.has_slots else None

        def run_with(ops: RoundOps) -> RoundOutputs:
            hidden, tapped = evaluate_round(self._model, inputs, view, ops, adapter=adapter, taps=self._taps)
            best = None
            if shape.chooses:
                best = inputs.best
                # Of equals `max` takes the first, as the choice outside a round does.
                best.copy_(self._model.scores(hidden).max(-1).indices, non_blocking=True)
            return RoundOutputs(hidden, tapped, best)

        # Kernels are launched on the current device, which need not be the model's.
        with torch.cuda.device(memory.device) if memory.is_cuda else nullcontext():
            if not self._is_checked:
                self._check_ops(run_with)
            run = partial(run_with, self._ops)
            if not memory.is_cuda:
                return _Round(run)
            recorded = self._recorder.record(run)
        logger.info("captured a round of %d rows over %d positions", shape.rows, shape.capacity)
        return _Round(recorded.replay, recorded.outputs, recorded.num_bytes)

    def _check_ops(self, run_with: Callable[[RoundOps], RoundOutputs]) -> None:
        """Fused steps are compiled for the device at hand: they are kept if they give what the reference gives."""
        self._is_checked = True
        expected = run_with(PlainOps()).hidden.float()
        try:
            found = run_with(self._ops).hidden.float()
            error = float((found - expected).norm() / expected.norm())
        except Exception:
            # Whatever the compiler does not like: the reference is at hand, and no request has to fail for it.
            logger.warning("fused steps cannot be compiled here: decoding goes on without them", exc_info=True)
            error = float("inf")
        if not error <= _TOLERANCE.get(self._model.dtype, 0.0):
            logger.warning("fused steps differ from the reference by %.1e: decoding goes on without them", error)
            self._ops = PlainOps()
