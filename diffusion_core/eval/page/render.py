"""Puts results, plots and the paper's figures into one HTML file that needs nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from diffusion_core.config import MIB
from diffusion_core.eval.page.collect import PageError, RunResult, collect, count_same_text, interval
from diffusion_core.eval.page.paper import make_tables, read_paper
from diffusion_core.eval.page.plots import make_plots
from diffusion_core.version import package_version

TEMPLATE = "page.html.j2"
MAX_UNSUPPORTED = 30


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """How many results the page shows, and remarks about what it does not."""

    num_runs: int
    notes: tuple[str, ...]


def write_page(paths: Sequence[Path], out: Path, title: str = "Evaluation") -> WrittenPage:
    """Write the page for the results that ``paths`` name or hold.

    Raises:
        PageError: a file is no result, there is none, a library is missing, or ``out`` cannot be written.
    """
    results, notes = collect(paths)
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise PageError("the page needs jinja2: pip install 'unmask[train]'") from None
    results.sort(key=_order)
    environment = Environment(
        loader=PackageLoader("diffusion_core.eval.page", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["percent"] = lambda rate: f"{100 * rate:.1f}"
    page = environment.get_template(TEMPLATE).render(
        title=title,
        version=package_version(),
        rows=[make_row(result) for result in results],
        comparisons=compare_policies(results),
        plots=make_plots(results),
        sections=[make_section(result) for result in results],
        tables=make_tables(results),
        paper=read_paper(),
        notes=notes,
    )
    _write(out, page)
    return WrittenPage(len(results), tuple(notes))


def _order(result: RunResult) -> tuple[int, str, str, str]:
    """Infilling, whole programs, edits, exercises; within a set by model and policy."""
    kinds = ("infilling", "generation", "editing", "exercism")
    benchmark = result.document["benchmark"]
    kind = kinds.index(benchmark) if benchmark in kinds else len(kinds)
    return kind, result.set_name, result.model, result.policy


def make_row(result: RunResult) -> dict[str, Any]:
    """The line of a result in the table of all."""
    document = result.document
    low, high = interval(document["passed"], document["n"])
    decode_ms = sum(item.get("denoise_ms", 0.0) for item in document["items"])
    tokens = sum(item["tokens"] for item in document["items"])
    return {
        **document, "set": result.set_name, "model": result.model, "policy": result.policy,
        "low": low, "high": high, "decode_tokens_per_second": 1000 * tokens / decode_ms if decode_ms else 0.0,
        "not_run_count": sum(document.get("not_run", {}).values()), "hardware": _hardware(result),
    }  # fmt: skip


def _hardware(result: RunResult) -> str:
    """The device of the last command that worked on the results."""
    begun = [entry for entry in result.log if entry.get("event") == "begin"]
    if not begun:
        return "not known"
    machine, device = begun[-1].get("machine", {}), str(begun[-1].get("device", ""))
    threads = begun[-1].get("threads")
    return f"{machine['cpu']}, {count(threads or 0, 'thread')}" if device == "cpu" and machine.get("cpu") else device


def compare_policies(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """For each set and model with several policies: them side by side, and on how many items their texts agree.

    Speeds are compared on the items that both have, so that a policy which was run on a part of a set stands fairly.
    """
    found = []
    for (name, model), group in groupby(results, key=lambda result: (result.set_name, result.model)):
        runs = list(group)
        base = next((run for run in runs if run.policy == "autoregressive"), runs[0])
        for run in runs:
            if run is base:
                continue
            same, shared = count_same_text(base, run)
            figures = {"base": _speed_on(base, run), "other": _speed_on(run, base)}
            found.append(
                {"set": name, "model": model, "base": base.policy, "other": run.policy, "same": same, "shared": shared,
                 "figures": figures}
            )  # fmt: skip
    return found


def _speed_on(run: RunResult, other: RunResult) -> dict[str, float]:
    shared = {item["task_id"] for item in other.document["items"]}
    items = [item for item in run.document["items"] if item["task_id"] in shared]
    tokens, seconds = sum(item["tokens"] for item in items), sum(item["ms"] for item in items) / 1000
    forwards = sum(item["nfe"] for item in items)
    return {
        "pass_at_1": sum(bool(item["passed"]) for item in items) / len(items) if items else 0.0,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "tokens_per_forward": tokens / forwards if forwards else 0.0,
    }


def make_section(result: RunResult) -> dict[str, Any]:
    """What the page tells of one result."""
    document = result.document
    parts: dict[str, Mapping[str, Any]] = {}
    for field in ("by_kind", "by_language"):
        parts.update(document.get(field, {}))
    parts.update({f"after try {number}": row for number, row in document.get("by_try", {}).items()})
    if document.get("small_changes", {}).get("n"):
        parts["changes of less than a fifth of the lines"] = document["small_changes"]
    unsupported = document.get("unsupported_items", {})
    return {
        "label": result.label,
        "parts": parts,
        "pass_at_k": document.get("pass_at_k", {}),
        "outcomes": result.outcomes,
        "finish_reasons": result.finish_reasons,
        "not_run": document.get("not_run", {}),
        "unsupported": dict(list(unsupported.items())[:MAX_UNSUPPORTED]),
        "num_unsupported": len(unsupported),
        "settings": {name: _shorten(name, value) for name, value in document["settings"].items()},
        "isolation": document.get("isolation", ""),
        "log": describe_log(result),
    }


def _shorten(name: str, value: Any) -> str:
    """A setting for the page: hashes by their beginning, programs by their name, sizes in MiB."""
    if name.endswith("_sha256"):
        return str(value)[:12]
    if name == "memory_bytes":
        return f"{value // MIB} MiB"
    return Path(str(value)).name if name == "python" else str(value)


def count(number: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_log(result: RunResult) -> list[dict[str, str]]:
    """Commands, dates, device and versions from the log beside a result; empty where there is none."""
    lines = []
    for entry in result.log:
        if entry.get("event") == "begin":
            machine = entry.get("machine", {})
            facts = [entry.get("device"), entry.get("dtype"), machine.get("cpu")]
            facts += [count(entry["threads"], "thread") if entry.get("threads") else None]
            facts += [count(machine["cores"], "core") if machine.get("cores") else None]
            facts += [f"load {machine['load_average']}" if machine.get("load_average") is not None else None]
            versions = [f"{name} {machine[name]}" for name in ("unmask", "torch", "python") if machine.get(name)]
            lines.append(
                {"at": entry["at"], "what": "began", "command": entry["command"],
                 "facts": ", ".join(filter(None, facts)), "versions": ", ".join(versions)}
            )  # fmt: skip
        else:
            lines.append({"at": entry["at"], "what": "complete", "command": "", "facts": "", "versions": ""})
    return lines


def _write(out: Path, page: str) -> None:
    try:
        handle, name = tempfile.mkstemp(suffix=".html", dir=out.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            temporary.write_text(page, encoding="utf-8")
            temporary.chmod(0o644)
            temporary.replace(out)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PageError(f"{out}: cannot be written: {error.strerror}") from None
