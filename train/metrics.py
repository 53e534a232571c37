"""Figures of a run: sums over micro-batches, and the file ``metrics.jsonl`` they are written to, one line a record.

A record has ``kind`` (``step`` or ``evaluation``), ``step`` and plain numbers. Lines behind the step of a resumed
checkpoint are removed before the run goes on, so that every step stands there once.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusion_core.checkpoints.atomic import write_file
from diffusion_core.errors import ConfigError
from train.objective import LossOutput

METRICS_FILE = "metrics.jsonl"
STEP, EVALUATION = "step", "evaluation"


class MetricSums:
    """(sum, count) by name over micro-batches; tensors stay on their device until :meth:`take`."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, float | torch.Tensor, float | torch.Tensor]] = []

    def add(self, output: LossOutput) -> None:
        """Remember one micro-batch's metrics."""
        self._parts += [(name, *pair) for name, pair in output.metrics.items()]

    def take(self) -> dict[str, tuple[float, float]]:
        """The sums so far, in one transfer from the device; counting starts again."""
        flat = _to_floats([value for _, *pair in self._parts for value in pair])
        sums: dict[str, tuple[float, float]] = {}
        for index, (name, _, _) in enumerate(self._parts):
            total, count = sums.get(name, (0.0, 0.0))
            sums[name] = (total + flat[2 * index], count + flat[2 * index + 1])
        self._parts = []
        return sums


def _to_floats(values: list[float | torch.Tensor]) -> list[float]:
    tensors = [value.detach().reshape(()).double() for value in values if isinstance(value, torch.Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(numbers) if isinstance(value, torch.Tensor) else float(value) for value in values]


def average(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Mean by name; what was counted nowhere is left out."""
    return {name: total / count for name, (total, count) in sums.items() if count}


class MetricsFile:
    """Appends records to ``metrics.jsonl``; each line is complete once written.

    Where the disk is full, lines wait in memory and are written with a later one: a run does not end for a figure.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_FILE
        self._waiting: list[str] = []

    def cut_after(self, step: int) -> None:
        """Remove the records behind ``step`` and a last line that a kill left incomplete."""
        if not self.path.exists():
            return
        kept = [record for record in read_metrics(self.path.parent) if record["step"] <= step]
        write_file(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> bool:
        """Append one record and those that wait; whether the disk took them."""
        self._waiting.append(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab", buffering=0) as file:
                _write_whole(file, "".join(self._waiting).encode())
        except OSError:
            if self.path.exists():
                os.truncate(self.path, size)  # half a line would spoil the next one
            return False
        self._waiting = []
        return True


def _write_whole(file: io.FileIO, content: bytes) -> None:
    """Write all of ``content``: a disk that is nearly full takes a part and raises at the next call."""
    while content:
        content = content[file.write(content) :]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All complete records of a run's folder, in order.

    Raises:
        ConfigError: there is no such file, or a line before the last is damaged.
    """
    path = folder / METRICS_FILE
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ConfigError(f"{folder} is not the folder of a run: {path} cannot be read ({error.strerror})") from None
    records = []
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except ValueError:
            if number == len(lines) - 1:
                break  # a kill cut it; the step it spoke of is behind the last checkpoint
            raise ConfigError(f"{path}: line {number + 1} is not JSON") from None
    return records
