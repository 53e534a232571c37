"""Sums up an evaluation: the JSON that scripts rely on, and a short table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffusion_core.eval.run import is_supported, reference_key
from diffusion_core.eval.store import ResultStore
from diffusion_core.eval.tasks import Benchmark

if TYPE_CHECKING:
    from rich.table import Table

SMALL_CHANGE = 0.2


def make_report(benchmark: Benchmark, store: ResultStore) -> dict[str, Any]:
    """The result of a finished run. ``n`` counts scored items; unsupported ones are counted apart."""
    supported = [task for task in benchmark.tasks if is_supported(task, store)]
    unsupported = [task for task in benchmark.tasks if not is_supported(task, store)]
    items = [merge_item(store, task.task_id) for task in supported]
    report: dict[str, Any] = {"benchmark": benchmark.name, **summarize(items), "unsupported": len(unsupported)}
    report["model"] = _names(item.get("model", "") for item in items)
    report["policy"] = _names(item.get("policy", "") for item in items)
    report["errors"] = sum("error" in item for item in items)
    report["isolation"] = _names("/".join(item["verdict"]["isolation"] or ()) for item in items)
    if benchmark.name == "editing":
        kinds = sorted({item["kind"] for item in items})
        report["by_kind"] = {kind: summarize(item for item in items if item["kind"] == kind) for kind in kinds}
        report["small_changes"] = summarize(item for item in items if item["changed_lines"] < SMALL_CHANGE)
        report["unsupported_items"] = {
            task.task_id: store.references[reference_key(task.render_reference() or "")]["output"]
            for task in unsupported
        }
    report["items"] = items
    return report


def merge_item(store: ResultStore, task_id: str) -> dict[str, Any]:
    """One entry of ``items``."""
    verdict = dict(store.verdicts[task_id])
    answer = store.answers[task_id]
    return {"task_id": task_id, "passed": verdict.pop("passed"), **answer, "verdict": verdict}


def summarize(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts and rates over some items."""
    items = list(items)
    passed = sum(bool(item["passed"]) for item in items)
    tokens, forwards = sum(item["tokens"] for item in items), sum(item["nfe"] for item in items)
    seconds = sum(item["ms"] for item in items) / 1000
    latencies = [item["ms"] for item in items if "error" not in item]
    return {
        "n": len(items),
        "passed": passed,
        "pass_at_1": divide(passed, len(items)),
        "tokens_per_forward": divide(tokens, forwards),
        "tokens_per_second": divide(tokens, seconds),
        "p50_ms": percentile(latencies, 0.50),
        "p95_ms": percentile(latencies, 0.95),
    }


def divide(part: float, whole: float) -> float:
    """A rate; 0 of nothing is 0."""
    return round(part / whole, 4) if whole else 0.0


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least ``fraction`` of the values do not exceed; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = max(1, -int(-fraction * len(ordered) // 1))
    return round(ordered[rank - 1], 3)


def _names(values: Iterable[str]) -> str:
    return ", ".join(sorted({value for value in values if value}))


def render_table(report: Mapping[str, Any]) -> Table:
    """The report as a short table."""
    from rich.table import Table

    table = Table(title=f"{report['benchmark']} · {report['model'] or 'no model'} · {report['policy'] or 'no policy'}")
    for heading in ("", "items", "passed", "pass@1", "tokens/forward", "tokens/s", "p50 ms", "p95 ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows: dict[str, Mapping[str, Any]] = {"all": report, **report.get("by_kind", {})}
    if report.get("small_changes", {}).get("n"):
        rows[f"changes < {SMALL_CHANGE:.0%}"] = report["small_changes"]
    for name, row in rows.items():
        table.add_row(
            name, str(row["n"]), str(row["passed"]), f"{row['pass_at_1']:.3f}", f"{row['tokens_per_forward']:.2f}",
            f"{row['tokens_per_second']:.1f}", f"{row['p50_ms']:.0f}", f"{row['p95_ms']:.0f}",
        )  # fmt: skip
    notes = [f"{report['unsupported']} unsupported here"] if report["unsupported"] else []
    notes += [f"{report['errors']} without an answer"] if report["errors"] else []
    if report["isolation"]:
        notes.append(f"sandbox (network/processes/files): {report['isolation']}")
    table.caption = " · ".join(notes)
    return table
