"""The report as a picture, where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_core.pictures import ChartError, save_picture
from lsp_server.stats.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_REASONS = 10


def draw_charts(report: Report, path: Path) -> None:
    """Write a PNG file; it is whole or not there.

    Raises:
        ChartError: the file's name is no PNG's, matplotlib is missing, or the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise ChartError(f"--plot {path}: the name must end with .png")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ChartError("--plot needs matplotlib: pip install matplotlib (without --plot, bars are printed)") from None
    figure = Figure(figsize=(12, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2, 2)
    _draw_days(axes[0][0], report)
    _draw_latencies(axes[0][1], report)
    _draw_reasons(axes[1][0], report)
    _draw_survival(axes[1][1], report)
    save_picture(figure, path)


def _draw_days(axes: Axes, report: Report) -> None:
    days = list(report.by_day)
    axes.bar(days, [report.by_day[day].num_shown for day in days], label="shown", color="#c6dbef")
    taken = [report.by_day[day].num_accepted + report.by_day[day].num_partly for day in days]
    axes.bar(days, taken, label="accepted, whole or partly", color="#2171b5")
    axes.set_title("Suggestions per day")
    axes.tick_params(axis="x", rotation=60)
    axes.legend()


def _draw_latencies(axes: Axes, report: Report) -> None:
    names = [f"{one.task} {one.phase}" for one in report.latencies]
    axes.barh(names, [one.p95_ms for one in report.latencies], label="p95", color="#c7e9c0")
    axes.barh(names, [one.p50_ms for one in report.latencies], label="p50", color="#238b45")
    axes.invert_yaxis()
    axes.set_title("Latency, ms")
    axes.legend()


def _draw_reasons(axes: Axes, report: Report) -> None:
    reasons = list(report.drops.items())[:MAX_REASONS]
    axes.barh([name for name, _ in reasons], [n for _, n in reasons], color="#6baed6")
    axes.invert_yaxis()
    axes.set_title("Why nothing was shown")


def _draw_survival(axes: Axes, report: Report) -> None:
    total = report.total
    names = [f"after 30 s (n={total.num_known_soon})", f"after 5 min (n={total.num_known_late})"]
    kept = ((total.num_kept_soon, total.num_known_soon), (total.num_kept_late, total.num_known_late))
    axes.bar(names, [100 * part / whole if whole else 0.0 for part, whole in kept], color="#fd8d3c")
    axes.set_ylim(0, 100)
    axes.set_title("Accepted texts still there, %")
