"""The measurements of `unmask bench` as short tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def render_decode(summary: Mapping[str, Any]) -> Table:
    """Policies beside each other."""
    notes = [
        f"{summary['n']} prompts, {summary['repeat']} times; same text on {summary['same_text']} of "
        f"{summary['n'] * summary['repeat']}",
        *_bandwidth_note(summary),
    ]
    table = _table(
        summary, notes, "policy", "tokens/s", "forwards/s", "tokens/forward", "ms/forward", "limit ms", "x limit",
        "p50 ms", "p95 ms",
    )  # fmt: skip
    for name, row in summary["policies"].items():
        table.add_row(
            name, f"{row['tokens_per_second']:.1f}", f"{row['forwards_per_second']:.1f}",
            f"{row['tokens_per_forward']:.2f}", f"{row['ms_per_forward']:.2f}", *_limit_cells(row),
            f"{row['p50_ms']:.0f}", f"{row['p95_ms']:.0f}",
        )  # fmt: skip
    return table


def render_contexts(summary: Mapping[str, Any]) -> Table:
    """Latency over the length of the context."""
    first = summary["contexts"][0]["keystroke"]
    notes = [f"per context {first['requests']} typed characters, answers of up to {summary['max_tokens']} tokens"]
    table = _table(
        summary, notes, "prompt tokens", "cold: ms", "prefill tokens/s", "keystroke: p50 ms", "p95 ms",
        "computed tokens", "tokens", "forwards",
    )  # fmt: skip
    for row in summary["contexts"]:
        cold, key = row["cold"], row["keystroke"]
        table.add_row(
            str(row["prompt_tokens"]), f"{cold['p50_ms']:.0f}", f"{cold['prefill_tokens_per_second']:.0f}",
            f"{key['p50_ms']:.1f}", f"{key['p95_ms']:.1f}", f"{key['computed_tokens']:.1f}", f"{key['tokens']:.1f}",
            f"{key['forwards']:.1f}",
        )  # fmt: skip
    return table


def render_forwards(summary: Mapping[str, Any]) -> Table:
    """Time of a forward over its number of rows."""
    notes = [f"medians, behind {summary['forward_context']} cached tokens", *_bandwidth_note(summary)]
    table = _table(summary, notes, "rows", "ms/forward", "p95 ms", "limit ms", "x limit")
    for row in summary["forwards"]:
        table.add_row(str(row["rows"]), f"{row['ms_per_forward']:.2f}", f"{row['p95_ms']:.2f}", *_limit_cells(row))
    return table


def render_serve(summary: Mapping[str, Any]) -> Table:
    """Throughput and latency over the number of users."""
    notes = [f"{summary['requests_per_user']} requests for each user, {summary['n']} different prompts"]
    if summary["start_to_first_answer_ms"] is not None:
        notes.append(f"first answer {summary['start_to_first_answer_ms'] / 1000:.1f} s after the server's start")
    table = _table(
        summary, notes, "users", "tokens/s", "requests/s", "p50 ms", "p95 ms", "tokens/forward", "prompt reused",
        "errors",
    )  # fmt: skip
    for row in summary["levels"]:
        errors = ", ".join(f"{count} {code}" for code, count in row["errors"].items())
        table.add_row(
            str(row["users"]), f"{row['tokens_per_second']:.1f}", f"{row['requests_per_second']:.2f}",
            f"{row['p50_ms']:.0f}", f"{row['p95_ms']:.0f}", f"{row['tokens_per_forward']:.2f}",
            f"{row['reused_share']:.0%}", errors or "none",
        )  # fmt: skip
    return table


def _table(summary: Mapping[str, Any], notes: list[str], *headings: str) -> Table:
    from rich.table import Table

    title = f"{summary['benchmark']} · {summary['model'] or 'no model'} · {summary['device']} {summary['dtype']}"
    table = Table(title=title, caption=" · ".join(notes))
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    return table


def _bandwidth_note(summary: Mapping[str, Any]) -> list[str]:
    found = summary["machine"].get("bandwidth")
    if found is None:
        return []
    best = max(found["read_gb_per_second"], found["copy_gb_per_second"])
    return [f"limit: the weights once at {best:.1f} GB/s"]


def _limit_cells(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["times_limit"] is None:
        return "-", "-"
    return f"{row['limit_ms_per_forward']:.2f}", f"{row['times_limit']:.2f}"
