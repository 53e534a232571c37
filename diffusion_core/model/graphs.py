"""Work on a CUDA device, recorded as a graph and replayed, and what the host does meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recorded(Generic[T]):
    """``replay`` does the work; its results are in ``outputs``. ``num_bytes`` is what recording it took."""

    replay: Callable[[], None]
    outputs: T
    num_bytes: int


class Meanwhile:
    """Work of the host that may wait until the device is busy with the next round."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def add(self, work: Callable[[], None]) -> None:
        """Work that decides nothing before then."""
        self._work.append(work)

    def do(self) -> None:
        """All of it, in the order in which it came."""
        work, self._work = self._work, []
        for each in work:
            each()


class Recorder:
    """Records work of one device; all that it recorded shares memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None  # torch's handle of that memory

    def record(self, run: Callable[[], T]) -> Recorded[T]:
        """Record ``run``. It runs a few times before, which has to leave everything as once would."""
        device = self._device
        before = torch.cuda.memory_reserved(device)
        main, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            for _ in range(2):
                run()
        main.wait_stream(aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Only this thread's calls are forbidden meanwhile: another one may be loading a model.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = run()
        return Recorded(graph.replay, outputs, max(0, torch.cuda.memory_reserved(device) - before))
