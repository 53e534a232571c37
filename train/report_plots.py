"""Curves of a run as PNG files: loss, accuracy by offset, tokens per forward, forward time, speed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from train.forward_times import ForwardTime
from train.metrics import EVALUATION, STEP

SIZE_INCHES, DOTS_PER_INCH = (7.0, 3.6), 110
SMOOTHING = 0.9
TOKENS_PER_FORWARD = "tokens_per_forward"

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture with what it shows: ``name`` is its file's name."""

    name: str
    title: str
    note: str
    png: bytes


def _new_axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _finish(figure: Figure, name: str, title: str, note: str = "") -> Plot:
    if any(axes.get_legend_handles_labels()[0] for axes in figure.axes):
        figure.axes[0].legend(fontsize="small")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return Plot(name=name, title=title, note=note, png=stream.getvalue())


def series(records: Sequence[Record], kind: str, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a figure in the records of one kind."""
    found = [(record["step"], record[name]) for record in records if record["kind"] == kind and name in record]
    return [step for step, _ in found], [value for _, value in found]


def smooth(values: Sequence[float], keep: float = SMOOTHING) -> list[float]:
    """Exponential moving average without the pull of a zero start."""
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed


def offset_curves(record: Record) -> dict[str, list[tuple[int, float]]]:
    """Figures named ``curve/0``, ``curve/1``, ... as curves over their offset."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, value in record.items():
        family, _, offset = name.rpartition("/")
        if family and offset.isdigit():
            curves.setdefault(family, []).append((int(offset), value))
    return {family: sorted(points) for family, points in curves.items()}


def plot_loss(records: Sequence[Record]) -> Plot | None:
    """Training loss, smoothed, and every held-out figure whose name ends in ``loss``."""
    steps, losses = series(records, STEP, "loss")
    if not steps:
        return None
    figure, axes = _new_axes("step", "loss")
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth(losses), color="tab:blue", label="training, smoothed")
    evaluations = [record for record in records if record["kind"] == EVALUATION]
    for name in sorted({name for record in evaluations for name in record if name.endswith("loss")}):
        axes.plot(*series(records, EVALUATION, name), "o-", markersize=3, label=f"held out: {name}")
    return _finish(figure, "loss", "Loss")


def plot_offsets(records: Sequence[Record]) -> list[Plot]:
    """Each curve over the offset in a block: at the first and the last evaluation, and half-way."""
    evaluations = [record for record in records if record["kind"] == EVALUATION and offset_curves(record)]
    source = evaluations or [record for record in records if offset_curves(record)]
    if not source:
        return []
    chosen = {0: source[0], len(source) // 2: source[len(source) // 2], len(source) - 1: source[-1]}
    plots = []
    for family in offset_curves(source[-1]):
        figure, axes = _new_axes("offset in the block", family)
        for record in chosen.values():
            points = offset_curves(record).get(family, [])
            axes.plot(
                [k for k, _ in points], [v for _, v in points], "o-", markersize=3, label=f"step {record['step']}"
            )
        axes.set_ylim(bottom=0)
        note = "on held-out data" if evaluations else "on training data"
        plots.append(_finish(figure, f"{family.replace('/', '_')}_by_offset", f"{family} by offset", note))
    return plots


def plot_tokens_per_forward(records: Sequence[Record], stages: Sequence[tuple[str, int]] = ()) -> Plot | None:
    """Tokens per forward over training (paper 3.3, figure 2a); the second scale is the speed-up over the start.

    ``stages``: (name, first step) of a run of several stages.
    """
    steps, values = series(records, EVALUATION, TOKENS_PER_FORWARD)
    kind = "held out"
    if not steps:
        steps, values = series(records, STEP, TOKENS_PER_FORWARD)
        kind = "training data, smoothed"
        values = smooth(values)
    if not steps:
        return None
    figure, axes = _new_axes("step", "tokens per forward")
    axes.plot(steps, values, "o-", markersize=3, label=kind)
    for name, first in stages:
        axes.axvline(first, color="grey", linestyle=":", linewidth=1)
        axes.annotate(name, (first, 1.0), xycoords=("data", "axes fraction"), fontsize="x-small", va="top", rotation=90)
    start = values[0]
    if start > 0:
        ratio = axes.secondary_yaxis("right", functions=(partial(np.multiply, 1 / start), partial(np.multiply, start)))
        ratio.set_ylabel("speed-up over the start")
    return _finish(figure, TOKENS_PER_FORWARD, "Tokens per forward over training", "the paper's figure 2a")


def plot_forward_times(times: Sequence[ForwardTime], device: str) -> Plot | None:
    """Time of a forward, and of each of its tokens, over the block size (paper 3.4, figure 2b)."""
    if not times:
        return None
    figure, axes = _new_axes("block size", "ms a forward")
    sizes = [entry.block_size for entry in times]
    axes.plot(sizes, [entry.milliseconds for entry in times], "o-", markersize=3, label="forward")
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    other = axes.twinx()
    other.set_ylabel("ms a slot")
    per_slot = [entry.milliseconds / entry.block_size for entry in times]
    other.plot(sizes, per_slot, "s--", color="tab:red", markersize=3)
    axes.plot([], [], "s--", color="tab:red", markersize=3, label="a slot (right)")
    other.set_ylim(bottom=0)
    note = f"the paper's figure 2b; {times[0].context_tokens} tokens of context, {device}"
    return _finish(figure, "forward_time", "Forward time over block size", note)


def plot_optimisation(records: Sequence[Record]) -> Plot | None:
    """Learning rate and gradient norm."""
    steps, norms = series(records, STEP, "grad_norm")
    if not steps:
        return None
    figure, axes = _new_axes("step", "gradient norm")
    axes.plot(steps, norms, linewidth=0.8, alpha=0.4, color="tab:green")
    axes.plot(steps, smooth(norms), color="tab:green", label="gradient norm, smoothed")
    if min(norms) > 0:
        axes.set_yscale("log")
    other = axes.twinx()
    other.set_ylabel("learning rate")
    other.plot(*series(records, STEP, "learning_rate"), color="tab:purple")
    axes.plot([], [], color="tab:purple", label="learning rate (right)")
    return _finish(figure, "optimisation", "Gradient norm and learning rate")


def plot_speed(records: Sequence[Record]) -> Plot | None:
    """Tokens a second and model FLOP utilisation."""
    steps, tokens = series(records, STEP, "tokens_per_second")
    if not steps:
        return None
    figure, axes = _new_axes("step", "tokens a second")
    axes.plot(steps, tokens, label="tokens a second")
    axes.set_ylim(bottom=0)
    other = axes.twinx()
    other.set_ylabel("MFU, %")
    mfu_steps, mfu = series(records, STEP, "mfu")
    other.plot(mfu_steps, [100 * value for value in mfu], color="tab:red")
    other.set_ylim(bottom=0)
    axes.plot([], [], color="tab:red", label="model FLOP utilisation (right)")
    return _finish(figure, "speed", "Speed", "utilisation is achieved over the measured matmul peak of the device")
