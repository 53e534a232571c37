"""The report of a run: one HTML page that needs no other file, and its plots as PNG files."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_core.checkpoints.atomic import write_file
from diffusion_core.errors import ConfigError
from train.forward_times import read_forward_times
from train.metrics import EVALUATION, METRICS_FILE, STEP, read_metrics
from train.progress import format_rate, format_seconds
from train.report_plots import (
    Plot,
    Record,
    plot_forward_times,
    plot_loss,
    plot_offsets,
    plot_optimisation,
    plot_speed,
    plot_tokens_per_forward,
)
from train.settings import flatten

REPORT_FILE, PLOTS_FOLDER, TEMPLATE_FILE = "report.html", "plots", "report.html.j2"
MAX_TABLE_ROWS = 40


@dataclass(frozen=True, kw_only=True)
class Section:
    """One run (a stage of several, perhaps) as the page shows it."""

    name: str
    summary: list[tuple[str, str]]
    evaluation_names: list[str]
    evaluations: list[list[str]]
    plots: list[Plot]
    settings: list[tuple[str, str]]

    @property
    def pictures(self) -> list[tuple[Plot, str]]:
        """Plots with their files in base64."""
        return [(plot, base64.b64encode(plot.png).decode()) for plot in self.plots]


def find_runs(folder: Path) -> list[Path]:
    """The folder itself, or its stages in order where it holds a recipe of several.

    Raises:
        ConfigError: there is no run in it.
    """
    if (folder / METRICS_FILE).is_file():
        return [folder]
    stages = sorted(
        (path.parent for path in folder.glob(f"*-*/{METRICS_FILE}")), key=lambda path: _stage_number(path.name)
    )
    if not stages:
        raise ConfigError(f"{folder} is not the folder of a run: there is no {METRICS_FILE} in it")
    return stages


def _stage_number(name: str) -> int:
    number = name.partition("-")[0]
    return int(number) if number.isdigit() else 0


def write_report(folder: Path) -> Path:
    """Write ``report.html`` and ``plots/*.png`` from what the folder holds; returns the page.

    Raises:
        ConfigError: there is no run in the folder, or its files are damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    runs = find_runs(folder)
    records = [read_metrics(run) for run in runs]
    sections = [_make_section(run, found) for run, found in zip(runs, records, strict=True)]
    overall = _plot_all_stages(runs, records) if len(runs) > 1 else None
    for run, section in zip(runs, sections, strict=True):
        for plot in section.plots:
            write_file(run / PLOTS_FOLDER / f"{plot.name}.png", plot.png)
    if overall is not None:
        write_file(folder / PLOTS_FOLDER / f"{overall.name}.png", overall.png)
    template = Environment(
        loader=PackageLoader("train", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template(TEMPLATE_FILE)
    page = template.render(
        title=folder.resolve().name,
        sections=sections,
        overall=overall,
        overall_png=base64.b64encode(overall.png).decode() if overall is not None else "",
    )
    write_file(folder / REPORT_FILE, page.encode())
    return folder / REPORT_FILE


def _make_section(run: Path, records: Sequence[Record]) -> Section:
    device, times = read_forward_times(run)
    plots = [plot_loss(records), *plot_offsets(records), plot_tokens_per_forward(records)]
    plots += [plot_forward_times(times, device), plot_optimisation(records), plot_speed(records)]
    names, rows = _evaluation_table(records)
    config = _read_json(run / "config.json")
    return Section(
        name=run.resolve().name,
        summary=_summarise(_read_json(run / "run.json"), records),
        evaluation_names=names,
        evaluations=rows,
        plots=[plot for plot in plots if plot is not None],
        settings=[(name, json.dumps(value)) for name, value in flatten(config).items()],
    )


def _plot_all_stages(runs: Sequence[Path], records: Sequence[Sequence[Record]]) -> Plot | None:
    """Tokens per forward over all stages, their steps one after the other."""
    joined: list[dict[str, Any]] = []
    stages, first = [], 0
    for run, found in zip(runs, records, strict=True):
        stages.append((run.name, first))
        joined += [{**record, "step": record["step"] + first} for record in found]
        first += max((record["step"] for record in found), default=0)
    return plot_tokens_per_forward(joined, stages)


def _evaluation_table(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Figures of the evaluations, without the curves; a long run's table is thinned out, its ends stay."""
    found = [record for record in records if record["kind"] == EVALUATION]
    if len(found) > MAX_TABLE_ROWS:
        kept = {round(i * (len(found) - 1) / (MAX_TABLE_ROWS - 1)) for i in range(MAX_TABLE_ROWS)}
        found = [found[i] for i in sorted(kept)]
    names = sorted({name for record in found for name in record if "/" not in name} - {"kind", "step"})
    return names, [[str(record["step"]), *(_cell(record.get(name)) for name in names)] for record in found]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _summarise(run: dict[str, Any], records: Sequence[Record]) -> list[tuple[str, str]]:
    steps = [record for record in records if record["kind"] == STEP]
    rows = [("steps", str(steps[-1]["step"] if steps else 0))]
    if steps:
        rows.append(("last loss", f"{steps[-1]['loss']:.4f}"))
    if not run:
        return [*rows, ("state", "not ended (or killed): there is no run.json")]
    seconds = max(run["seconds"], 1e-9)
    processes = f", {run['num_processes']} processes" if run["num_processes"] > 1 else ""
    return [
        *rows,
        ("ended", run["reason"]),
        ("device", run["device"] + processes),
        ("trained parameters", format_rate(run["trained_parameters"])),
        ("time in steps", format_seconds(run["seconds"])),
        ("sequences", f"{format_rate(run['num_sequences'])}, {format_rate(run['num_sequences'] / seconds)} a second"),
        ("tokens", f"{format_rate(run['num_tokens'])}, {format_rate(run['num_tokens'] / seconds)} a second"),
        ("arithmetic", f"{run['flops_per_token'] / 1e9:.3g} GFLOP a token, counted"),
        (
            "model FLOP utilisation",
            f"{100 * run['mfu']:.1f} % of {run['peak_flops_per_second'] / 1e12:.3g} TFLOP/s "
            f"(measured, {run['peak_dtype']} matmul)",
        ),
        ("torch", run["torch"]),
    ]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return values
