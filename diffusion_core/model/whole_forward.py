"""Decoding rounds as one kernel, for rows of one sequence or of several; on CUDA captured and replayed.

Keys and values are read where each sequence has them. A row's bits follow from the row and its own sequence alone, so
sequences share a round without a change to any of their texts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product

import torch

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.captured import RoundOutputs
from diffusion_core.model.graphs import Meanwhile, Recorder
from diffusion_core.model.kernel_shape import ROW_BUCKETS
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import causal
from diffusion_core.model.together import SequenceRows
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_inputs import WholeInputs
from diffusion_core.model.whole_round import WholeRound

logger = logging.getLogger(__name__)

# How far a round may be from the ordinary forward, as a share of its length.
_TOLERANCE = 5e-2


class WholeForward:
    """Evaluates the rounds of one model; one thread at a time. ``max_positions`` bounds a sequence with its draft."""

    can_share = True
    row_buckets: tuple[int, ...] = ROW_BUCKETS

    def __init__(
        self, model: Transformer, adapter: GatedAdapter | None, whole: WholeRound, *, max_positions: int
    ) -> None:
        self._model, self._adapter, self._whole = model, adapter, whole
        self._max_positions = max_positions
        self._group = model.config.num_heads // model.config.num_kv_heads
        self._is_cuda = model.device.type == "cuda"
        self._inputs: dict[int, WholeInputs] = {}
        self._rounds: dict[tuple[int, bool], Callable[[], RoundOutputs]] = {}
        self.meanwhile = Meanwhile()
        self._recorder = Recorder(model.device)
        self._recorded_bytes = 0
        # Whether what the last round was given may still be on its way to the device, as a part of that round.
        self._is_sending = False

    @property
    def max_rows(self) -> int:
        """The most rows of a round."""
        return ROW_BUCKETS[-1]

    @property
    def num_captured(self) -> int:
        """Rounds that are ready to be replayed."""
        return len(self._rounds)

    @property
    def num_bytes(self) -> int:
        """Memory held on the device, in bytes: the copy of the weights, inputs, captured rounds."""
        inputs = sum(held.num_bytes for held in self._inputs.values())
        return self._whole.num_bytes + inputs + self._recorded_bytes

    def rows_for(self, num_rows: int) -> int:
        """The smallest bucket that holds ``num_rows`` rows."""
        for bucket in ROW_BUCKETS:
            if bucket >= num_rows:
                return bucket
        raise ValueError(f"a round has at most {self.max_rows} rows, not {num_rows}")

    def fits(self, cache: KVCache, num_rows: int) -> bool:
        """Whether a round of ``num_rows`` rows behind ``cache`` is one for :meth:`evaluate`."""
        return num_rows <= self.max_rows and cache.length + num_rows <= self._max_positions

    def rows_to_score(self, num_rows: int) -> int:
        """Rows that the output head is given where it is asked apart from a round."""
        return self.max_rows

    @torch.inference_mode()
    def prepare(self) -> None:
        """Compile and capture now what requests need: it is no wait for one of them."""
        cache = self._new_cache()
        for rows, chooses in product(ROW_BUCKETS, (False, True)):
            self.evaluate(cache, [0] * rows, range(rows), causal(rows), chooses=chooses)

    def _new_cache(self) -> KVCache:
        model = self._model
        return KVCache(model.config, capacity=self.max_rows + 32, dtype=model.dtype, device=model.device)

    def agrees(self) -> bool:
        """Whether rounds of all sizes give what ordinary forwards give: they are compiled for the device at hand."""
        return all(self._agrees(rows - 4) for rows in ROW_BUCKETS)

    @torch.inference_mode()
    def _agrees(self, size: int) -> bool:
        model, seen = self._model, 32
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, model.config.vocab_size, (1, seen + size), generator=generator)
        places = torch.arange(seen + size)[None]
        caches = self._new_cache(), self._new_cache()
        first_slot = None if self._adapter is None else size // 2
        for cache in caches:
            model(ids[:, :seen].to(model.device), places[:, :seen].to(model.device), causal(seen), cache=cache)
            cache.commit(seen)
        expected = model(
            ids[:, seen:].to(model.device), places[:, seen:].to(model.device), causal(size), cache=caches[0],
            adapter=self._adapter, first_slot=first_slot,
        )[0]  # fmt: skip
        rows, positions = ids[0, seen:].tolist(), places[0, seen:].tolist()
        outputs = self.evaluate(caches[1], rows, positions, causal(size), first_slot, chooses=True)
        self.wait()
        assert outputs.best is not None
        error = float((outputs.hidden.float() - expected.float()).norm() / expected.float().norm())
        # The token that was taken, by the head's own scores: of near ties it may be the other one.
        scores, best = model.scores(outputs.hidden).float(), outputs.best[:size].to(model.device)
        most = scores.max(-1).values
        missed = float(((most - scores.gather(-1, best[:, None])[:, 0]) / most.abs().clamp(min=1.0)).max())
        if not max(error, missed) <= _TOLERANCE:
            logger.warning(
                "rounds of %d rows as one kernel differ from the reference by %.1e, their tokens by %.1e",
                size, error, missed,
            )  # fmt: skip
            return False
        return True

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
        """As :meth:`~diffusion_core.model.captured.CapturedForward.evaluate`."""
        num_clean = len(ids) if first_slot is None else first_slot
        return self.evaluate_together([SequenceRows(cache, ids, positions, visible, num_clean)], chooses=chooses)

    def evaluate_together(self, sequences: Sequence[SequenceRows], *, chooses: bool = False) -> RoundOutputs:
        """Rows of several sequences, no cache twice: their hidden states one after the other, and so their best tokens.

        The caller sees to it that there are at most :attr:`max_rows` rows, and that each sequence :meth:`fits`.
        """
        total = 0
        for rows in sequences:
            total += len(rows.tokens)
            rows.cache.reserve(rows.cache.length + len(rows.tokens))
        bucket = self.rows_for(total)
        inputs = self._inputs.get(bucket)
        if inputs is None:
            with torch.inference_mode(False):  # memory that may be written to in either mode
                inputs = self._inputs[bucket] = WholeInputs(bucket, self._group, self._model.device)
        if self._is_sending:
            self.wait()
        inputs.fill(sequences)
        self._is_sending = chooses
        if not chooses:
            inputs.send_ahead()
        run = self._rounds.get((bucket, chooses))
        if run is None:
            run = self._rounds[bucket, chooses] = self._make(inputs, chooses)
        outputs = run()
        self.meanwhile.do()
        return RoundOutputs(outputs.hidden[:total], [], outputs.best)

    def wait(self) -> None:
        """Until what the last round brings to the host is there."""
        if self._is_cuda:
            torch.cuda.current_stream(self._model.device).synchronize()
        self._is_sending = False

    def _make(self, inputs: WholeInputs, chooses: bool) -> Callable[[], RoundOutputs]:
        run = partial(self._run, inputs, chooses)
        device = self._model.device
        # Kernels are launched on the current device, which need not be the model's.
        with torch.cuda.device(device) if self._is_cuda else nullcontext():
            if not self._is_cuda:
                return run
            recorded = self._recorder.record(run)
        self._recorded_bytes += recorded.num_bytes
        logger.info("captured a round of %d rows as one kernel", inputs.num_rows)

        def replay() -> RoundOutputs:
            recorded.replay()
            return recorded.outputs

        return replay

    def _run(self, inputs: WholeInputs, chooses: bool) -> RoundOutputs:
        if chooses:
            inputs.send()
        hidden, chosen = self._whole.run(inputs, chooses=chooses)
        if not chooses:
            return RoundOutputs(hidden, [])
        if chosen is None:
            # Of equals `max` takes the first, as the kernel does.
            chosen = self._model.scores(hidden).max(-1).indices
        inputs.best.copy_(chosen, non_blocking=True)
        return RoundOutputs(hidden, [], inputs.best)
