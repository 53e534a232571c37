"""How fast a device works: its measured matmul peak, the arithmetic of a step, and the share of the peak in use.

Model FLOP utilisation here is achieved over *measured* peak: the floating-point operations of forward and backward,
counted by torch's own counter, over the fastest square matrix product that this device does in the same dtype.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

# Steps whose arithmetic is counted: the second, and then some, because the mixture of a batch varies. Not the first,
# nor any at a round number: there the order stage also makes its pool of trajectories, the arithmetic of a hundred
# steps. Which ones is a function of the step alone, so that a resumed run counts the same ones.
COUNT_EVERY = 200


def describe_device(device: torch.device) -> str:
    """A device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def measure_peak(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.25) -> float:
    """The fastest of repeated square matrix products, in floating-point operations a second."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.ones(size, size, dtype=dtype, device=device)
    b = torch.ones(size, size, dtype=dtype, device=device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        _synchronise(device)
        start = time.perf_counter()
        torch.matmul(a, b)
        _synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class FlopMeter:
    """Counts the arithmetic of some steps; ``per_token`` is the latest figure. A run of one step counts that one."""

    def __init__(self, per_token: float = 0.0, *, num_steps: int = 0) -> None:
        self.per_token = per_token
        self._counted = 0 if num_steps == 1 else 1

    @contextlib.contextmanager
    def watch(self, step: int) -> Iterator[FlopCounterMode | None]:
        """Count what happens inside, if it is this step's turn."""
        if step % COUNT_EVERY != self._counted:
            yield None
            return
        with FlopCounterMode(display=False) as counter:
            yield counter

    def note(self, counter: FlopCounterMode | None, num_tokens: float) -> None:
        """Take over the count of a step that put ``num_tokens`` rows through the model."""
        if counter is not None and num_tokens:
            self.per_token = counter.get_total_flops() / num_tokens


@dataclass
class Rates:
    """Speed of the run, without evaluations and saves: smoothed over about the last twenty steps."""

    seconds: float = 0.0
    tokens: float = 0.0
    sequences: float = 0.0
    steps: float = 0.0

    def note(self, seconds: float, tokens: float, sequences: float) -> None:
        """Add a step; older ones fade."""
        keep = 0.95
        self.seconds = keep * self.seconds + seconds
        self.tokens = keep * self.tokens + tokens
        self.sequences = keep * self.sequences + sequences
        self.steps = keep * self.steps + 1

    def per_second(self) -> dict[str, float]:
        """Steps, tokens and sequences a second."""
        seconds = self.seconds or float("inf")
        return {
            "steps_per_second": self.steps / seconds,
            "tokens_per_second": self.tokens / seconds,
            "sequences_per_second": self.sequences / seconds,
        }
