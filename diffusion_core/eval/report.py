"""Sums up an evaluation: the JSON that scripts rely on, and a short table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffusion_core.eval.run import is_supported, reference_key
from diffusion_core.eval.samples import estimate_pass_at
from diffusion_core.eval.store import ResultStore
from diffusion_core.eval.tasks import Benchmark, EvalTask
from diffusion_core.eval.tries import next_tries

if TYPE_CHECKING:
    from rich.table import Table

SMALL_CHANGE = 0.2
SUMMED = ("nfe", "tokens", "ms", "prefill_ms", "denoise_ms")


def make_report(benchmark: Benchmark, store: ResultStore) -> dict[str, Any]:
    """The result of a finished run. ``n`` counts scored items; what could not be scored is counted apart.

    An item of a benchmark with several tries passed if one of them did; ``by_try`` says how many passed by then.
    """
    supported = [task for task in benchmark.tasks if is_supported(task, store)]
    unsupported = [task for task in benchmark.tasks if not is_supported(task, store)]
    items = [merge_tries(benchmark, store, task) for task in supported]
    report: dict[str, Any] = {"benchmark": benchmark.name, **summarize(items), "unsupported": len(unsupported)}
    report["model"] = _names(item.get("model", "") for item in items)
    report["policy"] = _names(item.get("policy", "") for item in items)
    report["errors"] = sum("error" in item for item in items)
    report["isolation"] = _names("/".join(item["verdict"]["isolation"] or ()) for item in items)
    if benchmark.settings.get("samples", 1) > 1:
        report["pass_at_k"] = estimate_pass_at(items)
    if benchmark.num_tries > 1:
        report["by_try"] = {str(number): _summarize_tries(items, number) for number in _tries(benchmark)}
    for name, field in (("by_kind", "kind"), ("by_language", "language")):
        values = sorted({item[field] for item in items if field in item})
        if values:
            report[name] = {value: summarize(item for item in items if item.get(field) == value) for value in values}
    if benchmark.name == "editing":
        report["small_changes"] = summarize(item for item in items if item["changed_lines"] < SMALL_CHANGE)
    if obstacles := Counter(task.obstacle for task in unsupported if task.obstacle):
        report["not_run"] = dict(sorted(obstacles.items()))
    report["unsupported_items"] = {task.task_id: _why_unsupported(task, store) for task in unsupported}
    report["items"] = items
    return report


def _tries(benchmark: Benchmark) -> range:
    return range(1, benchmark.num_tries + 1)


def _summarize_tries(items: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any]:
    """How the items stood after so many tries; the figures of speed are those of all tries up to then."""
    reached = [_join_tries(item["tries"][:number]) for item in items]
    return {**summarize(reached), "asked": sum(len(item["tries"]) >= number for item in items)}


def _why_unsupported(task: EvalTask, store: ResultStore) -> str:
    if task.obstacle:
        return f"not run: {task.obstacle}"
    return str(store.references[reference_key(task.render_reference() or "")]["output"])


def merge_tries(benchmark: Benchmark, store: ResultStore, task: EvalTask) -> dict[str, Any]:
    """One entry of ``items``; with several tries, theirs are in ``tries`` and the entry sums them up."""
    if benchmark.num_tries == 1:
        return merge_item(store, task.task_id)
    tries, latest = [merge_item(store, task.task_id)], [task]
    for _ in range(1, benchmark.num_tries):
        latest = next_tries(latest, store)
        tries += [merge_item(store, again.task_id) for again in latest]
    return {**_join_tries(tries), "tries": tries}


def _join_tries(tries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The last try under the first one's name, with the figures of all."""
    sums = {name: round(sum(item.get(name, 0) for item in tries), 3) for name in SUMMED}
    # ``problem`` too: samples of one item are counted together by it, and a later try is named after its try.
    named = {name: tries[0][name] for name in ("task_id", "problem") if name in tries[0]}
    return {**tries[-1], **named, **sums}


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
    rows: dict[str, Mapping[str, Any]] = {"all": report, **report.get("by_kind", {}), **report.get("by_language", {})}
    rows.update({f"after try {number}": row for number, row in report.get("by_try", {}).items()})
    if report.get("small_changes", {}).get("n"):
        rows[f"changes < {SMALL_CHANGE:.0%}"] = report["small_changes"]
    for name, row in rows.items():
        table.add_row(
            name, str(row["n"]), str(row["passed"]), f"{row['pass_at_1']:.3f}", f"{row['tokens_per_forward']:.2f}",
            f"{row['tokens_per_second']:.1f}", f"{row['p50_ms']:.0f}", f"{row['p95_ms']:.0f}",
        )  # fmt: skip
    not_run = report.get("not_run", {})
    notes = [f"{count} not run: {reason}" for reason, count in not_run.items()]
    unsupported = report["unsupported"] - sum(not_run.values())
    notes += [f"{unsupported} unsupported here"] if unsupported else []
    notes += [f"pass@{k} {value:.3f}" for k, value in report.get("pass_at_k", {}).items()]
    notes += [f"{report['errors']} without an answer"] if report["errors"] else []
    if report["isolation"]:
        notes.append(f"sandbox (network/processes/files): {report['isolation']}")
    table.caption = " · ".join(notes)
    return table
