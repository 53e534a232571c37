"""Measuring the engine's models while nobody waits: what their forwards cost, and how many threads are best.

The engine's thread takes one sample at a time and looks for requests in between, so nobody waits for longer than one.
Until a model is measured its rounds follow fixed rules. Those of a model with captured rounds always do: there only
each size is timed, at once. What else was measured is remembered for the next start.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator, Sequence

import torch

from diffusion_core.config import EngineConfig
from diffusion_core.engine.cost_file import CostFile, Remembered
from diffusion_core.engine.device import thread_candidates, usable_cores
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.cost_probe import CostProbe
from diffusion_core.sampling.size_times import time_sizes

logger = logging.getLogger(__name__)

_THREAD_SAMPLES = 3
# Fewer threads are taken when they are slower by no more than this: the editor wants the other cores.
_TOLERANCE = 1.05


class Calibration:
    """Knows which models are to be measured. Only the engine's thread uses it."""

    def __init__(self, config: EngineConfig, file: CostFile | None = None) -> None:
        self._config, self._file = config, file
        self._met: weakref.WeakSet[Transformer] = weakref.WeakSet()
        self._waiting: list[LoadedModel] = []
        self._running: Iterator[None] | None = None
        self._measured = ""

    def set_threads(self) -> None:
        """The configured number of threads, or at most as many as there are cores to use."""
        wanted = self._config.num_threads
        if wanted or torch.get_num_threads() > usable_cores():
            torch.set_num_threads(wanted or usable_cores())

    def meet(self, model: LoadedModel) -> None:
        """Take over what is remembered of a model, or put it down to be measured; nothing the second time."""
        if model.denoiser.model in self._met:
            return
        self._met.add(model.denoiser.model)
        self._forget(model.name)
        if model.denoiser.captured is not None:
            # What a row costs in an ordinary forward says nothing of rounds that take the time of their size.
            self._time_sizes(model)
            return
        remembered = self._file.read(self._key(model)) if self._file is not None else None
        if remembered is None:
            self._waiting.append(model)
            return
        if self._chooses_threads(model):
            torch.set_num_threads(min(remembered.num_threads, usable_cores()))
        model.rounds.costs = CostModel(remembered.table)

    def _time_sizes(self, model: LoadedModel) -> None:
        try:
            model.rounds.size_ms = time_sizes(model.denoiser)
        except Exception as error:
            logger.warning("rounds of a model could not be timed: %s", type(error).__name__)

    def _forget(self, name: str) -> None:
        """Let go of a model of that name, which has been replaced: nobody will ask it any more."""
        self._waiting = [model for model in self._waiting if model.name != name]
        if self._measured == name:
            self._running, self._measured = None, ""

    @property
    def has_work(self) -> bool:
        """Whether a model waits to be measured."""
        return self._running is not None or bool(self._waiting)

    def advance(self) -> None:
        """Take one sample. A model that cannot be measured keeps the fixed rules."""
        if self._running is None:
            if not self._waiting:
                return
            model = self._waiting.pop(0)
            self._running, self._measured = self._measure(model), model.name
            del model
        try:
            next(self._running)
        except StopIteration:
            self._running, self._measured = None, ""
        except Exception as error:
            logger.warning("a model could not be measured: %s", type(error).__name__)
            self._running, self._measured = None, ""

    def _measure(self, model: LoadedModel) -> Iterator[None]:
        probe = CostProbe(model.denoiser)
        if self._chooses_threads(model):
            yield from choose_threads(probe, thread_candidates())
        yield from probe.run()
        assert probe.table is not None
        model.rounds.costs = CostModel(probe.table)
        logger.info("forwards of %s are measured, with %d threads", model.name, torch.get_num_threads())
        if self._file is not None:
            self._file.write(self._key(model), Remembered(probe.table, torch.get_num_threads()))

    def _chooses_threads(self, model: LoadedModel) -> bool:
        """Threads are the engine's, not a model's: those are chosen that are best for completions, on a CPU."""
        is_main = model.name == self._config.model and model.denoiser.model.device.type == "cpu"
        is_set = self._config.num_threads or os.environ.get("OMP_NUM_THREADS")
        return is_main and not is_set and len(thread_candidates()) > 1

    def _key(self, model: LoadedModel) -> str:
        base, denoiser = model.denoiser.model, model.denoiser
        device = torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else base.device.type
        drafter = "head" if denoiser.draft_head is not None else "adapter" if denoiser.adapter is not None else "none"
        threads = "chosen" if self._chooses_threads(model) else torch.get_num_threads()
        return f"{model.name} {base.dtype} {base.num_bytes} drafter={drafter} {device} threads={threads}"


def choose_threads(probe: CostProbe, candidates: Sequence[int]) -> Iterator[None]:
    """Set the number of threads with which a forward is fastest; yields after every sample.

    In between the number is what it was, so that a request which comes meanwhile is not slowed down.
    """
    before = torch.get_num_threads()
    least = dict.fromkeys(candidates, float("inf"))
    for _ in range(_THREAD_SAMPLES):
        for number in candidates:
            torch.set_num_threads(number)
            probe.time_threads()  # the pool of threads is made anew
            least[number] = min(least[number], probe.time_threads())
            torch.set_num_threads(before)
            yield
    best = min(least.values())
    torch.set_num_threads(min(number for number, ms in least.items() if ms <= best * _TOLERANCE))
