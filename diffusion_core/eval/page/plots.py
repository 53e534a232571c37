"""Plots of results as SVG that stands in the page itself and takes its text colour from it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusion_core.eval.page.collect import PageError, RunResult, interval
from diffusion_core.eval.page.paper import read_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Middle tones that stand out on white and on black alike.
COLOURS = ("#3b82c4", "#d9822b", "#2e9e6b", "#b5559b", "#8a6fd1", "#c4483f", "#7a8793", "#a68a2d")
MARKERS = {"verified": "o", "autoregressive": "s", "confidence": "^", "fixed": "D"}
OTHER_MARKER = "X"
POLICY_COLOURS = {"verified": COLOURS[0], "autoregressive": COLOURS[6], "confidence": COLOURS[2], "fixed": COLOURS[1]}
# Stands for the page's text colour; a colour that nothing else has.
_INK = "#010203"
_SIZE_INCHES = (7.6, 4.4)


@dataclass(frozen=True, slots=True)
class PagePlot:
    """A plot: its title, what to know about it, and the text of its SVG element."""

    title: str
    note: str
    svg: str


def make_plots(results: Sequence[RunResult]) -> list[PagePlot]:
    """The plots of the page.

    Raises:
        PageError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 - whether it can be imported is the question
    except ImportError:
        raise PageError("plots need matplotlib: pip install 'unmask[train]'") from None
    scored = [result for result in results if result.document["n"]]
    if not scored:
        return []
    return [
        _plot_against(scored, "tokens_per_second", "tokens per second, prompt included"),
        _plot_against(scored, "tokens_per_forward", "tokens per forward"),
        _plot_speeds(scored),
    ]


def _new_axes(height: float = _SIZE_INCHES[1]) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE_INCHES[0], height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.grid(visible=True, alpha=0.18, color=_INK, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _render(figure: Figure, title: str, note: str) -> PagePlot:
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": title, "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" aria-label="{title}"', svg, count=1)
    return PagePlot(title=title, note=note, svg=svg)


def _plot_against(results: Sequence[RunResult], field: str, label: str) -> PagePlot:
    """pass@1 over a figure of speed: a colour a set, a marker a policy, a line through a model's policies."""
    figure, axes = _new_axes()
    names = list(dict.fromkeys(result.set_name for result in results))
    several_models = len({result.model for result in results}) > 1
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        runs = [result for result in results if result.set_name == name]
        points = [(run.document[field], 100 * run.document["pass_at_1"]) for run in runs]
        for model in dict.fromkeys(run.model for run in runs):
            line = sorted(point for run, point in zip(runs, points, strict=True) if run.model == model)
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1, alpha=0.5)
        for run, (x, y) in zip(runs, points, strict=True):
            low, high = interval(run.document["passed"], run.document["n"])
            error = [[max(0.0, y - 100 * low)], [max(0.0, 100 * high - y)]]
            axes.errorbar(x, y, yerr=error, fmt="none", ecolor=colour, alpha=0.35, linewidth=1)
            axes.plot(x, y, MARKERS.get(run.policy, OTHER_MARKER), color=colour, markersize=8)
            if several_models:
                axes.annotate(run.model, (x, y), (5, 4), textcoords="offset points", color=_INK, fontsize="x-small")
    _scale_logarithmically(axes)
    axes.margins(x=0.12)
    axes.set_ylim(-4, 104)
    axes.set_xlabel(label, color=_INK)
    axes.set_ylabel("pass@1, %", color=_INK)
    _add_legend(figure, names, [result.policy for result in results])
    return _render(figure, f"pass@1 against {label.partition(',')[0]}", "Bars: 95 % interval of the rate (Wilson).")


def _scale_logarithmically(axes: Axes, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """A logarithmic scale with labels at ``subs`` times the powers of ten; few enough to stand apart."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _add_legend(figure: Figure, names: Sequence[str], policies: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    sets = [
        Line2D([], [], color=COLOURS[number % len(COLOURS)], linewidth=3, label=name)
        for number, name in enumerate(names)
    ]
    marks = [
        Line2D([], [], color=_INK, linestyle="", marker=MARKERS.get(policy, OTHER_MARKER), label=policy)
        for policy in dict.fromkeys(policies)
    ]
    figure.legend(
        handles=[*sets, *marks], loc="outside lower center", ncols=3, fontsize="small", frameon=False, labelcolor=_INK
    )


def _plot_speeds(results: Sequence[RunResult]) -> PagePlot:
    """Tokens per second of each run beside the paper's figure."""
    speed = read_paper()["speeds"][0]
    figure, axes = _new_axes(height=1.4 + 0.3 * (len(results) + 1))
    several_models = len({result.model for result in results}) > 1
    labels = [result.label if several_models else f"{result.set_name} · {result.policy}" for result in results]
    values: list[Any] = [result.document["tokens_per_second"] for result in results]
    theirs = f"paper: {speed['model']}, {speed['hardware']}"
    colours = [POLICY_COLOURS.get(result.policy, COLOURS[3]) for result in results]
    bars = [speed["tokens_per_second"], *values]
    axes.barh([theirs, *labels], bars, color=[COLOURS[4], *colours], height=0.7)
    for row, value in enumerate(bars):
        text = f" {value:,.0f}" if value >= 1000 else f" {value:,.1f}"
        axes.annotate(text, (max(value, 0.1), row), va="center", color=_INK, fontsize="small")
    _scale_logarithmically(axes, subs=(1.0,))
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("tokens per second (logarithmic)", color=_INK)
    note = (
        "Another model on other hardware and other items: the distance, not a race. " + read_paper()["figure_1"]["note"]
    )
    return _render(figure, "Tokens per second", note)
