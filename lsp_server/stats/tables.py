"""The report as tables and bars in a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lsp_server.stats.report import Report, Usefulness, rate

BAR_CELLS = 30
MAX_DAYS = 30
MAX_REASONS = 12
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_report(report: Report, since: str, console: Console) -> None:
    """Everything that was recorded."""
    if report.is_empty:
        console.print(f"Nothing was recorded in the last {since}. Statistics are made by the language server.")
        return
    console.print(f"The last {since} on this machine", style="bold")
    console.print(_usefulness(report))
    if report.latencies:
        console.print(_latencies(report))
    if len(report.by_day) > 1:
        shown = {day: part.num_accepted + part.num_partly for day, part in list(report.by_day.items())[-MAX_DAYS:]}
        console.print(_bars("Taken per day", shown))
    if report.drops:
        console.print(_bars("Why nothing was shown", dict(list(report.drops.items())[:MAX_REASONS])))
    if report.edits:
        console.print(_bars("Edits", report.edits))


def _usefulness(report: Report) -> Table:
    table = Table(title="Suggestions", title_justify="left")
    table.add_column("")
    for heading in ("offered", "shown", "accepted", "partly", "dismissed", "after 30 s", "after 5 min", "characters"):
        table.add_column(heading, justify="right")
    parts: list[tuple[str, Usefulness]] = [("all", report.total)]
    if len(report.by_language) > 1:
        parts += list(report.by_language.items())
    for name, part in parts:
        accepted = f"{part.num_accepted} {_percent(rate(part.num_accepted, part.num_shown))}".rstrip()
        table.add_row(
            name, str(part.num_offered), str(part.num_shown), accepted, str(part.num_partly), str(part.num_dismissed),
            _percent(rate(part.num_kept_soon, part.num_known_soon)) or "-",
            _percent(rate(part.num_kept_late, part.num_known_late)) or "-",
            str(part.num_chars_accepted),
        )  # fmt: skip
    table.caption = "after 30 s, 5 min: accepted texts of which at least four fifths were still there"
    return table


def _latencies(report: Report) -> Table:
    table = Table(title="Latency in milliseconds", title_justify="left")
    table.add_column("task")
    table.add_column("phase")
    for heading in ("n", "p50", "p95"):
        table.add_column(heading, justify="right")
    table.add_column("p50 and p95")
    longest = max(one.p95_ms for one in report.latencies)
    for one in report.latencies:
        bar = Text(_bar(one.p50_ms / longest), style="green")
        bar.append(_bar(one.p95_ms / longest)[len(bar.plain.rstrip()) :], style="dim green")
        table.add_row(one.task, one.phase, str(one.num), f"{one.p50_ms:.1f}", f"{one.p95_ms:.1f}", bar)
    return table


def _bars(title: str, values: Mapping[str, int]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    largest = max(values.values(), default=0)
    for name, value in values.items():
        table.add_row(name, str(value), Text(_bar(value / largest if largest else 0), style="cyan"))
    return table


def _bar(share: float) -> str:
    eighths = round(max(0.0, min(1.0, share)) * BAR_CELLS * 8)
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"
