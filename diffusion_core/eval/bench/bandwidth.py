"""Measures the memory's bandwidth, and counts the bytes of weights that a forward reads (limits.py relates the two)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from diffusion_core.config import MIB
from diffusion_core.eval.bench.limits import Bandwidth
from diffusion_core.model.packed import count_bytes
from diffusion_core.model.transformer import Transformer

# Far beyond the caches: GPUs have up to 100 MB, the share of a server CPU's cache that one process gets is no larger.
CPU_BUFFER_BYTES = 512 * MIB
GPU_BUFFER_BYTES = 1024 * MIB
_REPEATS = 7


def measure_bandwidth(device: torch.device, num_bytes: int = 0) -> Bandwidth:
    """Read and copy a buffer of ``num_bytes`` (0: the usual size) on ``device``, with torch's threads."""
    num_bytes = num_bytes or (GPU_BUFFER_BYTES if device.type == "cuda" else CPU_BUFFER_BYTES)
    halves = torch.ones(2, num_bytes // 8, dtype=torch.float32, device=device)
    size = halves.numel() * halves.element_size()
    read_s = _best_time(lambda: torch.dot(halves[0], halves[1]), device)
    copy_s = _best_time(lambda: halves[0].copy_(halves[1]), device)
    return Bandwidth(read=size / read_s, copy=size / copy_s)


def wait_for_device(device: torch.device) -> None:
    """Return when the work that was given to ``device`` is done; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _best_time(work: Callable[[], Any], device: torch.device) -> float:
    times = []
    for _ in range(_REPEATS):
        wait_for_device(device)
        started = time.perf_counter()
        work()
        wait_for_device(device)
        times.append(time.perf_counter() - started)
    return min(times)


def bytes_per_forward(model: Transformer) -> int:
    """Bytes of weights that a forward of ``model`` reads: all layers and the output head.

    Of an embedding that is not the head as well only a few rows are read: it is not counted.
    """
    head = model.packed_head.num_bytes if model.packed_head is not None else model.head_weight.nbytes
    return count_bytes(model.layers) + count_bytes(model.norm) + int(head)
