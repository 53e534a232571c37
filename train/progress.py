"""What a run shows while it works: a progress bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

SECONDS_BETWEEN_LINES = 20.0


def format_seconds(seconds: float) -> str:
    """``45s``, ``3m 20s``, ``2h 05m``; ``?`` when unknown."""
    if not seconds < float("inf"):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def format_rate(value: float) -> str:
    """A number with three figures: ``0.12``, ``34.5``, ``1.2k``, ``3.4M``."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


class RunDisplay:
    """Progress of one run. ``is_quiet`` shows nothing (all processes but the main one)."""

    def __init__(self, name: str, total_steps: int, console: Console, *, is_quiet: bool = False) -> None:
        self._name, self._total, self._console, self._is_quiet = name, total_steps, console, is_quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0

    def __enter__(self) -> RunDisplay:
        if not self._is_quiet and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(self._name, total=self._total, figures="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show_step(self, step: int, loss: float, rates: Mapping[str, float], seconds_left: float, mfu: float) -> None:
        """The state after a step."""
        if self._is_quiet:
            return
        figures = (
            f"loss {loss:.4f} · {format_rate(rates['steps_per_second'])} steps/s · "
            f"{format_rate(rates['tokens_per_second'])} tokens/s · {format_rate(rates['sequences_per_second'])} "
            f"sequences/s · MFU {100 * mfu:.1f} % · {format_seconds(seconds_left)} left"
        )
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, figures=figures)
        elif step == self._total or time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"{self._name} {step}/{self._total} · {figures}", markup=False)

    def say(self, text: str, *, is_warning: bool = False) -> None:
        """A remark above the bar."""
        if not self._is_quiet:
            console = self._bar.console if self._bar is not None else self._console
            console.print(text, markup=False, style="yellow" if is_warning else "dim")
