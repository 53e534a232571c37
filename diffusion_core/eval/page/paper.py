"""What the paper reports, and which of our results stand beside it. ``paper.json`` is written off its text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from diffusion_core.eval.page.collect import RunResult

_MBXP_COLUMNS = {
    "python": "Python", "java": "Java", "cpp": "C++", "csharp": "C#", "typescript": "TS", "javascript": "JS",
    "php": "PHP", "go": "Go", "kotlin": "Kotlin", "perl": "Perl", "ruby": "Ruby", "scala": "Scala", "swift": "Swift",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """A row of a table. ``values`` are in percent, None where there is no figure; ``is_ours`` marks our results."""

    model: str
    size: str
    values: tuple[float | None, ...]
    is_ours: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperTable:
    """A table of the paper with our rows above its own."""

    reference: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    note: str


@cache
def read_paper() -> dict[str, Any]:
    """The figures of the paper with where they stand in it."""
    text = Path(__file__).with_name("paper.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def make_tables(results: Sequence[RunResult]) -> list[PaperTable]:
    """Tables 1 to 3, each with our rows first."""
    ours = {"1": _rows_of_table_1(results), "2": _rows_of_table_2(results), "3": _rows_of_table_3(results)}
    tables = []
    for number, table in read_paper()["tables"].items():
        theirs = [PaperRow(model=row["model"], size=row["size"], values=tuple(row["values"])) for row in table["rows"]]
        tables.append(
            PaperTable(
                reference=table["reference"],
                title=table["title"],
                columns=tuple(table["columns"]),
                rows=(*ours[number], *theirs),
                note=table["note"],
            )
        )
    return tables


def _percent(rate: float) -> float:
    return round(100 * rate, 1)


def _name(result: RunResult) -> str:
    return f"{result.model} ({result.policy})"


def _rows_of_table_1(results: Sequence[RunResult]) -> list[PaperRow]:
    """Ours by model and policy: the exercises after the second try, CanItEdit over both kinds of instruction."""
    found: dict[str, dict[str, RunResult]] = {}
    for result in results:
        if result.document["benchmark"] in {"exercism", "editing"}:
            found.setdefault(_name(result), {})[result.document["benchmark"]] = result
    rows = []
    for name, parts in found.items():
        exercism, editing = parts.get("exercism"), parts.get("editing")
        by_try = exercism.document.get("by_try", {}) if exercism else {}
        notes = []
        if exercism:
            first = by_try.get("1", {}).get("pass_at_1", 0.0)
            notes.append(f"{exercism.document['n']} exercises of {exercism.set_name}, {_percent(first)} after one try")
        if editing:
            notes.append(f"{editing.document['n']} instructions of {editing.set_name}")
        values = (
            _percent(by_try["2"]["pass_at_1"]) if "2" in by_try else None,
            _percent(editing.document["pass_at_1"]) if editing else None,
        )
        rows.append(PaperRow(model=name, size="", values=values, is_ours=True, note="; ".join(notes)))
    return rows


def _format_of(result: RunResult) -> str:
    return str(result.document["settings"].get("format", ""))


def _rows_of_table_2(results: Sequence[RunResult]) -> list[PaperRow]:
    columns = read_paper()["tables"]["2"]["columns"]
    rates: dict[str, dict[str, float]] = {}
    for result in results:
        if _format_of(result) == "mbxp":
            for language, summary in result.document.get("by_language", {}).items():
                rates.setdefault(_name(result), {})[_MBXP_COLUMNS[language]] = _percent(summary["pass_at_1"])
    return [
        PaperRow(
            model=name,
            size="",
            is_ours=True,
            values=tuple(found.get(column) for column in columns),
            note="" if len(found) == len(_MBXP_COLUMNS) else "no average: not all languages were run",
        )
        for name, found in rates.items()
    ]


def _rows_of_table_3(results: Sequence[RunResult]) -> list[PaperRow]:
    columns = read_paper()["tables"]["3"]["columns"]
    rates: dict[str, dict[str, float]] = {}
    for result in results:
        if _format_of(result) != "naturalcodebench":
            continue
        words = result.set_name.lower().replace("-", "_").split("_")
        tongue = next((word for word in ("zh", "en") if word in words), "")
        for language, summary in result.document.get("by_language", {}).items():
            column = f"{tongue} {language.capitalize()}"
            if column in columns:
                rates.setdefault(_name(result), {})[column] = _percent(summary["pass_at_1"])
    return [
        PaperRow(
            model=name,
            size="",
            is_ours=True,
            values=tuple(found.get(column) for column in columns),
            note="Java needs JUnit and is not run",
        )
        for name, found in rates.items()
    ]
