"""What the trainer asks of an objective, and the generator that makes its randomness resumable.

An objective owns data, corruption and loss; the trainer owns steps, gradients, files and figures. Neither keeps
hidden state that a resumed run would miss: a batch is a pure function of (seed, step, rank), and an objective that
learns something besides the model's weights (a baseline, a trajectory pool) also implements :class:`HasState`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

Saver = Callable[[Path], None]
"""Writes the checkpoint that the engine serves into a folder (``save_checkpoint`` or ``save_drafter``)."""


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """The loss of one micro-batch, not yet normalised.

    ``loss_sum`` is a scalar with a gradient, the sum over ``count`` tokens (or weights): the trainer divides by the
    count of all ranks and accumulated micro-batches, so that the gradient does not depend on how a batch is cut.
    ``metrics``: name -> (sum, count), averaged by the trainer over steps and ranks. A name that ends in ``/0``,
    ``/1``, ... is a curve over offsets (``accuracy/0``: of the first slot) and is plotted as one.
    ``batch_ids`` name the samples, for the message of a diverged run; never source code. ``num_tokens`` are the rows
    that went through the model and ``num_sequences`` the samples: for the rates and the FLOP utilisation shown.
    """

    loss_sum: torch.Tensor
    count: int | float | torch.Tensor
    metrics: dict[str, tuple[float | torch.Tensor, float | torch.Tensor]] = field(default_factory=dict)
    batch_ids: list[str] = field(default_factory=list)
    num_tokens: int = 0
    num_sequences: int = 0


class Objective(Protocol):
    """One stage of training. ``step`` counts micro-batches for :meth:`draw` and optimiser steps elsewhere."""

    def draw(self, step: int, rank: int, world_size: int) -> Any:
        """Batch of a rank: a pure function of (seed, step, rank, world_size).

        The batches of all ranks together must be the batch of a single rank, so that the number of processes does
        not change the loss. Called ahead of time on another thread; it must not touch the model.
        """
        ...

    def loss(self, model: nn.Module, batch: Any, step: int) -> LossOutput:
        """Loss of ``batch`` with gradients towards ``model``. Random choices come from :func:`make_generator`."""
        ...

    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        """Figures on held-out data, with the serving decoder where sensible; ``tokens_per_forward`` is plotted."""
        ...


@dataclass(frozen=True, kw_only=True)
class ObjectiveState:
    """What an objective has to remember between runs: tensors, and values that JSON can hold.

    ``is_own``: it comes from this very process, or from the one of the same rank in a run of as many processes.
    Otherwise it is the main process's of a run of another number of them.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    is_own: bool = True


@runtime_checkable
class HasState(Protocol):
    """An objective whose later steps depend on more than the model: a baseline, a pool of trajectories.

    In a run of several processes each has its own; all of them are saved, and each gets its own back.
    """

    def state(self) -> ObjectiveState:
        """Everything that a resumed run needs."""
        ...

    def load_state(self, state: ObjectiveState) -> None:
        """Continue from ``state``, whose tensors may lie on the CPU; not its own: from what holds for all processes."""
        ...


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and names; neighbouring inputs give unrelated seeds, on every machine the same."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def make_generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for ``(seed, step, rank, ...)`` or ``(seed, step, sample id)``: the same parts, the same numbers."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
