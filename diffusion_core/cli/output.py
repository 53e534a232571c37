"""What the command line prints: JSON and raw text on stdout, remarks for people on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusion_core.requests import Result

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 120


def open_console(*, stderr: bool = True) -> Console:
    """A console that colours for a terminal only; rich is imported late because it is a third of the start-up."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH  # a table in a file need not be as narrow as rich assumes
    return console


def write_text(text: str) -> None:
    """Write text to stdout exactly: no added line end, no translation, UTF-8 whatever the locale."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def write_json(fields: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    write_text(json.dumps(fields, indent=2) + "\n")


def result_fields(result: Result, text: str) -> dict[str, Any]:
    """The JSON of a completion or an edit; scripts rely on these names."""
    timings = result.timings
    return {
        "text": text,
        "finish_reason": result.finish_reason.value,
        "nfe": result.num_forwards,
        "tokens": result.num_tokens,
        "tokens_per_forward": round(result.tokens_per_forward, 4),
        "timings_ms": {
            "queue": round(timings.queue_ms, 3),
            "prefill": round(timings.prefill_ms, 3),
            "denoise": round(timings.denoise_ms, 3),
            "total": round(timings.total_ms, 3),
        },
        "model": result.model,
        "policy": result.policy,
        "prompt_tokens": result.num_prompt_tokens,
        "reused_tokens": result.num_reused_tokens,
        "computed_tokens": result.num_computed_tokens,
        "notice": result.notice,
    }


def describe_result(result: Result) -> str:
    """One line for people."""
    reused = f", {result.num_reused_tokens} of {result.num_prompt_tokens} prompt tokens reused"
    return (
        f"{result.timings.total_ms:.0f} ms · {result.num_tokens} tokens in {result.num_forwards} forwards "
        f"({result.tokens_per_forward:.1f} tokens/forward{reused if result.num_prompt_tokens else ''}) · "
        f"{result.model or 'unnamed model'}, {result.policy or 'unnamed policy'} · {result.finish_reason.value}"
    )


def print_summary(result: Result) -> None:
    """The dim summary line, and the engine's notice, on stderr."""
    console = open_console()
    console.print(describe_result(result), style="dim", markup=False)
    if result.notice:
        console.print(result.notice, style="yellow", markup=False)
