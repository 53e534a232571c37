"""The measurements of `unmask bench` as a picture, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_core.pictures import ChartError, save_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def check_chart(path: Path) -> None:
    """See that a picture can be made, before a measurement that takes minutes.

    Raises:
        ChartError: the file's name is no PNG's, its folder is missing, or matplotlib is.
    """
    if path.suffix.lower() != ".png":
        raise ChartError(f"--plot {path}: the name must end with .png")
    if not path.parent.is_dir():
        raise ChartError(f"--plot {path}: the folder {path.parent} does not exist")
    try:
        import matplotlib.figure  # noqa: F401 - whether it can be imported is the question
    except ImportError:
        raise ChartError(
            "--plot needs matplotlib: pip install matplotlib (without --plot, tables are printed)"
        ) from None


def draw_chart(summary: Mapping[str, Any], path: Path) -> None:
    """Write a PNG file; it is whole or not there.

    Raises:
        ChartError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    draw = _DRAWERS[summary["benchmark"]]
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    draw(summary, left, right)
    machine = summary["machine"]
    figure.suptitle(f"{summary['model']} · {summary['device']} {summary['dtype']} · {machine['cpu']}", fontsize=10)
    save_picture(figure, path)


def _draw_decode(summary: Mapping[str, Any], left: Axes, right: Axes) -> None:
    rows = summary["policies"]
    names = list(rows)
    left.bar(names, [rows[name]["tokens_per_second"] for name in names], color="#2171b5")
    left.set_title("Tokens per second")
    right.bar(names, [rows[name]["ms_per_forward"] for name in names], color="#6baed6")
    limits = [rows[name]["limit_ms_per_forward"] for name in names]
    if None not in limits:
        right.plot(names, limits, "_", markersize=60, color="#cb181d", label="limit: the weights read once")
        right.legend(markerscale=0.2)
    right.set_title("Milliseconds per forward")


def _draw_latency(summary: Mapping[str, Any], left: Axes, right: Axes) -> None:
    rows = summary["forwards"]
    numbers = [row["rows"] for row in rows]
    left.plot(numbers, [row["ms_per_forward"] for row in rows], "o-", color="#2171b5", label="median")
    left.plot(numbers, [row["p95_ms"] for row in rows], ":", color="#9ecae1", label="p95")
    left.axhline(rows[0]["limit_ms_per_forward"], color="#cb181d", linestyle="--", label="limit: the weights read once")
    left.set_xlabel("rows of a forward (block size)")
    left.set_ylabel("ms")
    left.set_title("Forward time over block size")
    contexts = summary["contexts"]
    lengths = [row["prompt_tokens"] for row in contexts]
    right.plot(lengths, [row["keystroke"]["p50_ms"] for row in contexts], "o-", color="#238b45", label="p50")
    right.plot(lengths, [row["keystroke"]["p95_ms"] for row in contexts], "o:", color="#a1d99b", label="p95")
    right.set_xlabel("prompt tokens")
    right.set_ylabel("ms")
    right.set_title(f"Warm keystroke, {summary['max_tokens']}-token suggestion")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()


def _draw_serve(summary: Mapping[str, Any], left: Axes, right: Axes) -> None:
    levels = summary["levels"]
    users = [level["users"] for level in levels]
    left.plot(users, [level["tokens_per_second"] for level in levels], "o-", color="#2171b5")
    left.set_ylabel("tokens/s, all users together")
    left.set_title("Throughput over concurrent users")
    right.plot(users, [level["p50_ms"] for level in levels], "o-", color="#238b45", label="p50")
    right.plot(users, [level["p95_ms"] for level in levels], "o:", color="#a1d99b", label="p95")
    right.set_ylabel("ms")
    right.set_title("Latency over concurrent users")
    right.legend()
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(users, [str(number) for number in users])
        axes.set_xlabel("concurrent users")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)


_DRAWERS: dict[str, Callable[[Mapping[str, Any], Any, Any], None]] = {
    "decode": _draw_decode, "latency": _draw_latency, "serve": _draw_serve,
}  # fmt: skip
