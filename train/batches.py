"""Batches drawn ahead of the steps that need them, and the seeds of a step."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from train.config import TrainConfig
from train.distributed import World
from train.objective import Objective

BATCHES_AHEAD = 2


class BatchesAhead:
    """Draws batches on another thread while the device works. Drawing is pure, so nothing is lost with them."""

    def __init__(self, objective: Objective, world: World, config: TrainConfig, pool: ThreadPoolExecutor) -> None:
        self._draw: Callable[[int, int, int], Any] = objective.draw
        self._world, self._pool = world, pool
        self._last = config.budget.steps * config.optim.accumulation - 1
        self._waiting: dict[int, Future[Any]] = {}

    def take(self, number: int) -> Any:
        """Batch ``number``; the next ones are begun."""
        for ahead in range(number, min(number + BATCHES_AHEAD, self._last) + 1):
            if ahead not in self._waiting:
                rank, size = self._world.rank, self._world.size
                self._waiting[ahead] = self._pool.submit(self._draw, ahead, rank, size)
        return self._waiting.pop(number).result()

    def close(self) -> None:
        """Forget what was begun."""
        for future in self._waiting.values():
            future.cancel()


def seed_everything(seed: int) -> None:
    """Seed the global generators that a library may use behind an objective's back."""
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        import numpy as np
    except ImportError:
        return
    np.random.seed(seed % 2**32)
