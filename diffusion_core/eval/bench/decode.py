"""Measures how fast policies decode the same prompts, in turns (A B, then B A), within one run.

Machines are noisy; only numbers of one run compare. Each prompt is computed once before it is measured, so every
policy starts from the same prefix cache and what differs is the decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffusion_core.eval.ask import ask, wait_ready
from diffusion_core.eval.bench.limits import Bandwidth, relate_to_limit
from diffusion_core.eval.bench.machine import describe_machine
from diffusion_core.eval.bench.own_engine import describe_engine
from diffusion_core.eval.bench.prompts import Prompt
from diffusion_core.eval.report import divide, percentile
from diffusion_core.eval.run import Progress, Report
from diffusion_core.requests import (
    DecodingParams,
    EditRequest,
    EngineClient,
    Result,
    WarmRequest,
    new_request_id,
)

if TYPE_CHECKING:
    from diffusion_core.engine.runner import AsyncEngine


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured request."""

    policy: str
    result: Result


async def measure_policies(
    client: EngineClient,
    prompts: Sequence[Prompt],
    decodings: Sequence[DecodingParams],
    repeat: int,
    report: Report,
    *,
    own: AsyncEngine | None = None,
) -> dict[str, Any]:
    """Measure every policy on every prompt ``repeat`` times; the result as JSON fields.

    ``own`` is the client itself where it is an engine of this process: then the memory's limit is measured as well,
    before and after, and the better of the two counts.
    """
    machine = describe_machine()
    health = await wait_ready(client)
    bandwidth = _measure_bandwidth(health.device) if own else None
    samples = await _take_turns(client, prompts, decodings, repeat, report)
    weights: dict[str, int] = {}
    if own is not None and bandwidth is not None:
        bandwidth = bandwidth.better(_measure_bandwidth(health.device))
        engine = describe_engine(own, health.device)
        machine |= {"engine": engine, "bandwidth": bandwidth.fields()}
        weights = {name: facts["bytes_per_forward"] for name, facts in engine["models"].items()}
    rows = {}
    for name in (decoding.policy.value for decoding in decodings):
        results = [sample.result for sample in samples if sample.policy == name]
        rows[name] = summarize_samples(results, weights, bandwidth)
    return {
        "benchmark": "decode",
        "machine": machine,
        "n": len(prompts),
        "repeat": repeat,
        "model": ", ".join(sorted({sample.result.model for sample in samples})),
        "device": health.device,
        "dtype": health.dtype,
        "same_text": count_same_text(samples, len(decodings)),
        "policies": rows,
    }


def _measure_bandwidth(device: str) -> Bandwidth:
    import torch

    from diffusion_core.eval.bench.bandwidth import measure_bandwidth

    return measure_bandwidth(torch.device(device))


async def _take_turns(
    client: EngineClient, prompts: Sequence[Prompt], decodings: Sequence[DecodingParams], repeat: int, report: Report
) -> list[Sample]:
    for decoding in decodings:  # whatever is built on first use is built here
        await ask(client, lambda decoding=decoding: _with_decoding(prompts[0], decoding))  # type: ignore[misc]
    samples: list[Sample] = []
    turns = [prompt for _ in range(repeat) for prompt in prompts]
    for turn, prompt in enumerate(turns):
        await client.warm(_warm(prompt))
        for decoding in decodings if turn % 2 == 0 else decodings[::-1]:
            request = _with_decoding(prompt, decoding)
            result = await ask(client, lambda request=request: replace(request, id=new_request_id()))  # type: ignore[misc]
            samples.append(Sample(decoding.policy.value, result))
            report(Progress(len(samples), len(turns) * len(decodings), 0, 0))
    return samples


def _with_decoding(prompt: Prompt, decoding: DecodingParams) -> Prompt:
    return replace(prompt, decoding=decoding, id=new_request_id())


def _warm(prompt: Prompt) -> WarmRequest:
    fresh = replace(prompt, id=new_request_id())
    return WarmRequest(edit=fresh) if isinstance(fresh, EditRequest) else WarmRequest(completion=fresh)


def count_same_text(samples: Sequence[Sample], num_policies: int) -> int:
    """On how many prompts all policies gave the same text."""
    groups = [samples[at : at + num_policies] for at in range(0, len(samples), num_policies)]
    return sum(len({sample.result.text for sample in group}) == 1 for group in groups)


def summarize_samples(
    results: Sequence[Result], weights: Mapping[str, int], bandwidth: Bandwidth | None
) -> dict[str, Any]:
    """Rates over the time of denoising; latency over the whole request.

    ``weights`` are the bytes that a forward of each model reads. ``times_limit`` is the mean time of a forward over
    the time in which the memory could have given the weights.
    """
    tokens = sum(result.num_tokens for result in results)
    forwards = sum(result.num_forwards for result in results)
    denoise_ms = sum(result.timings.denoise_ms for result in results)
    latencies = [result.timings.total_ms for result in results]
    ms_per_forward = denoise_ms / forwards if forwards else 0.0
    num_bytes = sum(weights.get(result.model, 0) * result.num_forwards for result in results)
    return {
        "requests": len(results),
        "policy": ", ".join(sorted({result.policy for result in results})),
        "tokens": tokens,
        "nfe": forwards,
        "tokens_per_second": divide(tokens, denoise_ms / 1000),
        "forwards_per_second": divide(forwards, denoise_ms / 1000),
        "tokens_per_forward": divide(tokens, forwards),
        "ms_per_forward": round(ms_per_forward, 4),
        **relate_to_limit(ms_per_forward, num_bytes / forwards if forwards else 0.0, bandwidth),
        "p50_ms": percentile(latencies, 0.50),
        "p95_ms": percentile(latencies, 0.95),
    }
