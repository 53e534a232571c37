"""Measuring what a forward costs: short samples, one at a time, so that whoever waits need not wait for all of them.

All layers of a model are alike, so on a CPU a sample runs a few of them, each time others: a forward's time in a
fraction of it, with weights that come from memory as they do when decoding. On a GPU a sample is a whole forward.
The least of several samples of a number of rows is kept: whatever disturbs a measurement makes it longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.masks import causal
from diffusion_core.model.packed import PackedLinear, PackedMatrix, max_equal_rows
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.cost_table import CostTable, fit_monotone
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import SequenceCache

# Committed positions that the samples see, and of the one sample that shows what positions cost.
NUM_KEYS, MANY_KEYS = 256, 1280
_BODY_ROWS = (2, 4, 8, 16, 32, 64)
_SLOT_ROWS = (4, 16, 64)  # one of them clean, the others slots
_KEY_ROWS = 16
_HEAD_ROWS = (2, 16, 64)
_FEWEST_STEPPED = 16
_DRAFTER_TOKENS = (4, 8, 16)
# On a CPU a sample runs this part of the layers.
_SHARE = 8
_FEWEST_SAMPLES, _MOST_SAMPLES = 3, 10
_SETTLED = 0.95
_MUST_SETTLE = ("body", "slots")
_THREAD_ROWS = 8

# What is measured: the part, its rows, and how.
_Part = tuple[str, int, Callable[[], float]]


@dataclass
class _Samples:
    """The least time seen of each part by its rows, in milliseconds; ``scale`` layers of the model are one that ran."""

    scale: float
    least: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, part: str, rows: int, ms: float) -> bool:
        """Whether the least so far was clearly more."""
        seen = self.least.setdefault(part, {})
        before = seen.get(rows, ms)
        seen[rows] = min(ms, before)
        return ms < before * _SETTLED

    def whole(self, part: str) -> dict[int, float]:
        """Milliseconds of all layers, by rows."""
        around = self.least["around"]
        return {n: around[n] + max(0.0, ms - around[n]) * self.scale for n, ms in self.least.get(part, {}).items()}

    def fit(self, *, has_own_head: bool) -> CostTable:
        body = self.whole("body")
        guess = self.least.get("guess", {})
        extra = [
            (rows - 1, max(0.0, ms - body[rows]) + guess.get(rows, 0.0)) for rows, ms in self.whole("slots").items()
        ]
        longer = self.whole("keys")[_KEY_ROWS] - body[_KEY_ROWS]
        return CostTable(
            body=fit_monotone(list(body.items())),
            head=fit_monotone(list(self.least["head"].items())),
            slots=fit_monotone(extra),
            drafter=fit_monotone(list(self.least.get("drafter", {}).items())),
            key_ms=max(0.0, longer / (_KEY_ROWS * (MANY_KEYS - NUM_KEYS))),
            num_keys=NUM_KEYS,
            has_own_head=has_own_head,
        )


def find_steps(model: Transformer) -> tuple[int, ...]:
    """Rows on both sides of the steps where a round is multiplied in one more part: one row may cost as much as many.

    Where parts are small, the first step says what the others are like.
    """
    layers = (each.matrix for each in model.modules() if isinstance(each, PackedLinear))
    if not any(isinstance(matrix, PackedMatrix) for matrix in layers):
        return ()
    most = max_equal_rows(model.dtype)
    if most >= MAX_DECODE_ROWS:
        return ()
    steps = range(most, MAX_DECODE_ROWS, most)[: None if most >= _FEWEST_STEPPED else 1]
    # Behind the last step as well, or what is beyond it would seem to go on as steeply.
    return (*(rows for last in steps for rows in (last, last + 1)), MAX_DECODE_ROWS)


class CostProbe:
    """Measures one model. Iterate :meth:`run` to its end, a sample at a time; then :attr:`table` is there."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        # Room for all samples: what grows while it is timed would be timed with them.
        self._cache = SequenceCache.create(denoiser, MANY_KEYS + 2 * max(_BODY_ROWS))
        self._steps = find_steps(denoiser.model)
        num_layers = len(denoiser.model.layers)
        is_cpu = denoiser.model.device.type == "cpu"
        self._num_run = -(-num_layers // _SHARE) if is_cpu else num_layers
        self._next_layer = 0
        self.table: CostTable | None = None

    def run(self) -> Iterator[None]:
        """Yields after every sample."""
        samples, parts = _Samples(len(self._denoiser.model.layers) / self._num_run), self._parts()
        # The first time of each also pays for kernels that are made for its number of rows: never the least. Where
        # other work disturbs, more are taken, until the least settle.
        for number in range(_MOST_SAMPLES):
            is_settled = number + 1 >= _FEWEST_SAMPLES
            for part, rows, measure in parts:
                has_changed = samples.add(part, rows, measure())
                is_settled = is_settled and not (has_changed and part in _MUST_SETTLE)
                yield
            if is_settled:
                break
        self.table = samples.fit(has_own_head=self._denoiser.guesses_apart)

    def time_threads(self) -> float:
        """One sample for comparing numbers of threads, in milliseconds."""
        return self._time_layers(_THREAD_ROWS)

    def _parts(self) -> list[_Part]:
        """All measurements, each once."""
        denoiser, body_rows = self._denoiser, sorted({*_BODY_ROWS, *self._steps})
        parts: list[_Part] = [
            ("around", rows, partial(self._time_layers, rows, has_layers=False)) for rows in body_rows
        ]
        parts += [("body", rows, partial(self._time_layers, rows)) for rows in body_rows]
        parts.append(("keys", _KEY_ROWS, partial(self._time_layers, _KEY_ROWS, num_keys=MANY_KEYS)))
        if denoiser.adapter is not None:
            parts += [("slots", rows, partial(self._time_layers, rows, first_slot=1)) for rows in _SLOT_ROWS]
        if denoiser.guesses_apart:
            # Only the slots behind the accepted length are read: a block, however many rode along.
            size = max(1, denoiser.contract.block_size)
            parts += [("guess", rows, partial(self._time_guess, size)) for rows in _SLOT_ROWS]
        parts += [("head", rows, partial(self._time_head, rows)) for rows in sorted({*_HEAD_ROWS, *self._steps})]
        if denoiser.draft_head is not None:
            parts += [("drafter", n, partial(self._time_drafter, n)) for n in _DRAFTER_TOKENS]
        return parts

    def _time_layers(
        self, rows: int, *, first_slot: int | None = None, num_keys: int = NUM_KEYS, has_layers: bool = True
    ) -> float:
        """Milliseconds of the next few layers over ``num_keys`` positions, and of what is done around them."""
        model, cache = self._denoiser.model, self._cache.base
        cache.crop(0)
        cache.commit(num_keys)
        first = rows if first_slot is None else first_slot
        mask_id = (self._denoiser.mask_id or 0) if first < rows else 0
        tokens = torch.tensor([[0] * first + [mask_id] * (rows - first)], device=model.device)
        positions = torch.arange(num_keys, num_keys + rows, device=model.device).unsqueeze(0)
        # A short model has no places there; which place a row has costs nothing.
        positions = positions.clamp(max=model.config.max_position_embeddings - 1)
        adapter = None if first_slot is None else self._denoiser.adapter
        only = self._take_layers() if has_layers else slice(0, 0)
        return self._time(
            lambda: model(
                tokens, positions, causal(rows), cache=cache, adapter=adapter, first_slot=first_slot, only=only
            )
        )

    def _take_layers(self) -> slice:
        """The layers of the next sample: others than the last ones', so that their weights come from memory."""
        if self._next_layer + self._num_run > len(self._denoiser.model.layers):
            self._next_layer = 0
        self._next_layer += self._num_run
        return slice(self._next_layer - self._num_run, self._next_layer)

    def _time_head(self, rows: int) -> float:
        model = self._denoiser.model
        hidden = torch.zeros(rows, model.config.hidden_size, dtype=model.dtype, device=model.device)
        return self._time(lambda: model.best(hidden))

    def _time_guess(self, rows: int) -> float:
        model = self._denoiser.model
        hidden = torch.zeros(rows, model.config.hidden_size, dtype=model.dtype, device=model.device)
        return self._time(lambda: self._denoiser.guess(hidden))

    def _time_drafter(self, num_tokens: int) -> float:
        model, head, cache = self._denoiser.model, self._denoiser.draft_head, self._cache.head
        assert head is not None and cache is not None
        cache.crop(0)
        cache.commit(NUM_KEYS)
        carried = torch.zeros(1, model.config.hidden_size, dtype=model.dtype, device=model.device)
        return self._time(lambda: head.draft(model, 0, carried, num_tokens, cache))

    def _time(self, work: Callable[[], object]) -> float:
        self._finish()
        begin = time.perf_counter()
        with torch.inference_mode():
            work()
        self._finish()
        return (time.perf_counter() - begin) * 1000

    def _finish(self) -> None:
        if self._denoiser.model.device.type == "cuda":
            torch.cuda.synchronize(self._denoiser.model.device)
