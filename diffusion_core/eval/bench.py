"""Measures how fast policies decode the same prompts, in turns (A B, then B A), within one run.

Machines are noisy; only numbers of one run compare. Each prompt is computed once before it is measured, so every
policy starts from the same prefix cache and what differs is the decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion_core.eval.ask import ask, wait_ready
from diffusion_core.eval.dataset import Dataset, DatasetError, Row
from diffusion_core.eval.report import divide, percentile
from diffusion_core.eval.run import Progress, Report
from diffusion_core.requests import (
    CompletionRequest,
    DecodingParams,
    EditRequest,
    EngineClient,
    Result,
    WarmRequest,
    new_request_id,
)

if TYPE_CHECKING:
    from rich.table import Table

Prompt = CompletionRequest | EditRequest


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured request."""

    policy: str
    result: Result


def make_prompts(dataset: Dataset, model: str, max_tokens: int, *, single_line: bool) -> list[Prompt]:
    """A request for each row: an edit where the row has an instruction, else a completion.

    Raises:
        DatasetError: a row has neither ``prompt`` nor ``before`` and ``instruction_descriptive``.
    """

    def make(row: Row) -> Prompt:
        if "instruction_descriptive" in row.fields:
            return EditRequest(
                selection=row.text("before"), instruction=row.text("instruction_descriptive"), language="python",
                model=model, max_tokens=max_tokens,
            )  # fmt: skip
        if "prompt" not in row.fields:
            raise DatasetError(f"{row.where}: has neither `prompt` nor `instruction_descriptive`")
        suffix = row.text("suffix") if "suffix" in row.fields else ""
        return CompletionRequest(
            prefix=row.text("prompt"), suffix=suffix, language="python", model=model, max_tokens=max_tokens,
            single_line=single_line,
        )  # fmt: skip

    return [make(row) for row in dataset.rows]


async def measure_policies(
    client: EngineClient, prompts: Sequence[Prompt], decodings: Sequence[DecodingParams], repeat: int, report: Report
) -> dict[str, Any]:
    """Measure every policy on every prompt ``repeat`` times; the result as JSON fields."""
    health = await wait_ready(client)
    samples: list[Sample] = []
    turns = [(index, prompt) for _ in range(repeat) for index, prompt in enumerate(prompts)]
    for decoding in decodings:  # whatever is built on first use is built here
        await ask(client, lambda decoding=decoding: _with_decoding(prompts[0], decoding))  # type: ignore[misc]
    total = len(turns) * len(decodings)
    for turn, (_, prompt) in enumerate(turns):
        await client.warm(_warm(prompt))
        order = decodings if turn % 2 == 0 else decodings[::-1]
        for decoding in order:
            request = _with_decoding(prompt, decoding)
            result = await ask(client, lambda request=request: replace(request, id=new_request_id()))  # type: ignore[misc]
            samples.append(Sample(decoding.policy.value, result))
            report(Progress(len(samples), total, 0, 0))
    names = [decoding.policy.value for decoding in decodings]
    rows = {name: summarize_samples([s.result for s in samples if s.policy == name]) for name in names}
    return {
        "benchmark": "decode",
        "n": len(prompts),
        "repeat": repeat,
        "model": ", ".join(sorted({sample.result.model for sample in samples})),
        "device": health.device,
        "dtype": health.dtype,
        "same_text": count_same_text(samples, len(decodings)),
        "policies": rows,
    }


def _with_decoding(prompt: Prompt, decoding: DecodingParams) -> Prompt:
    return replace(prompt, decoding=decoding, id=new_request_id())


def _warm(prompt: Prompt) -> WarmRequest:
    fresh = replace(prompt, id=new_request_id())
    return WarmRequest(edit=fresh) if isinstance(fresh, EditRequest) else WarmRequest(completion=fresh)


def count_same_text(samples: Sequence[Sample], num_policies: int) -> int:
    """On how many prompts all policies gave the same text."""
    groups = [samples[at : at + num_policies] for at in range(0, len(samples), num_policies)]
    return sum(len({sample.result.text for sample in group}) == 1 for group in groups)


def summarize_samples(results: Sequence[Result]) -> dict[str, Any]:
    """Rates over the time of denoising; latency over the whole request."""
    tokens = sum(result.num_tokens for result in results)
    forwards = sum(result.num_forwards for result in results)
    denoise_s = sum(result.timings.denoise_ms for result in results) / 1000
    latencies = [result.timings.total_ms for result in results]
    return {
        "requests": len(results),
        "policy": ", ".join(sorted({result.policy for result in results})),
        "tokens": tokens,
        "nfe": forwards,
        "tokens_per_second": divide(tokens, denoise_s),
        "forwards_per_second": divide(forwards, denoise_s),
        "tokens_per_forward": divide(tokens, forwards),
        "p50_ms": percentile(latencies, 0.50),
        "p95_ms": percentile(latencies, 0.95),
    }


def render_bench(summary: dict[str, Any]) -> Table:
    """The measurement as a short table."""
    from rich.table import Table

    title = f"decode · {summary['model'] or 'no model'} · {summary['device']} {summary['dtype']}"
    table = Table(title=title, caption=f"{summary['n']} prompts, {summary['repeat']} times; same text on "
                  f"{summary['same_text']} of {summary['n'] * summary['repeat']}")  # fmt: skip
    for heading in ("policy", "tokens/s", "forwards/s", "tokens/forward", "p50 ms", "p95 ms"):
        table.add_column(heading, justify="left" if heading == "policy" else "right")
    for name, row in summary["policies"].items():
        table.add_row(
            name, f"{row['tokens_per_second']:.1f}", f"{row['forwards_per_second']:.1f}",
            f"{row['tokens_per_forward']:.2f}", f"{row['p50_ms']:.0f}", f"{row['p95_ms']:.0f}",
        )  # fmt: skip
    return table
