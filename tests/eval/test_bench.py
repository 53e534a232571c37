"""The arithmetic of `unmask bench`: what a forward reads, what the memory gives, and how the two are related."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import SHAPES, tiny_transformer

from diffusion_core.eval.bench.bandwidth import bytes_per_forward, measure_bandwidth
from diffusion_core.eval.bench.decode import summarize_samples
from diffusion_core.eval.bench.latency import ContextSamples, summarize_context
from diffusion_core.eval.bench.limits import Bandwidth, relate_to_limit
from diffusion_core.eval.bench.serve import Level, summarize_level
from diffusion_core.model.packed import can_pack
from diffusion_core.requests import FinishReason, Result, Timings

FAST = Bandwidth(read=20e9, copy=10e9)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_forward_reads_every_weight_but_an_embedding_of_its_own(shape: str) -> None:
    model = tiny_transformer(shape)
    unread = 0 if model.lm_head is None else model.embed_tokens.weight.numel()
    expected = 4 * (sum(parameter.numel() for parameter in model.parameters()) - unread)
    assert bytes_per_forward(model) == expected
    assert bytes_per_forward(model.bfloat16()) == expected // 2
    if can_pack(torch.device("cpu"), torch.float32):
        model.float().pack()
        assert bytes_per_forward(model) == expected


def test_the_bandwidth_is_that_of_the_buffer() -> None:
    found = measure_bandwidth(torch.device("cpu"), 1 << 22)
    # A memory of less than 50 MB/s or more than 20 TB/s is a mistake in the arithmetic.
    assert 5e7 < found.read < 2e13 and 5e7 < found.copy < 2e13
    assert found.best == max(found.read, found.copy)


def test_the_better_of_two_measurements_counts() -> None:
    other = Bandwidth(read=15e9, copy=12e9)
    assert FAST.better(other) == other.better(FAST) == Bandwidth(read=20e9, copy=12e9)
    assert FAST.fields() == {"read_gb_per_second": 20.0, "copy_gb_per_second": 10.0}


def test_the_limit_is_the_time_to_read_the_weights() -> None:
    assert relate_to_limit(75.0, 1e9, FAST) == {"limit_ms_per_forward": 50.0, "times_limit": 1.5}
    unknown = {"limit_ms_per_forward": None, "times_limit": None}
    assert relate_to_limit(75.0, 1e9, None) == relate_to_limit(75.0, 0, FAST) == unknown


def make_result(model: str, tokens: int, forwards: int, denoise_ms: float, *, computed: int = 40) -> Result:
    timings = Timings(prefill_ms=100.0, denoise_ms=denoise_ms, total_ms=denoise_ms + 10)
    return Result(
        id="1", text="", finish_reason=FinishReason.STOP, num_tokens=tokens, num_forwards=forwards, timings=timings,
        model=model, policy="verified", num_prompt_tokens=50, num_computed_tokens=computed,
        num_reused_tokens=50 - computed,
    )  # fmt: skip


def test_a_limit_over_two_models_counts_the_forwards_of_each() -> None:
    results = [make_result("small", 30, 10, 200.0), make_result("large", 10, 10, 600.0)]
    row = summarize_samples(results, {"small": 200_000_000, "large": 600_000_000}, FAST)
    assert (row["tokens"], row["nfe"], row["tokens_per_forward"]) == (40, 20, 2.0)
    assert (row["tokens_per_second"], row["forwards_per_second"], row["ms_per_forward"]) == (50.0, 25.0, 40.0)
    assert (row["limit_ms_per_forward"], row["times_limit"]) == (20.0, 2.0)
    assert (row["p50_ms"], row["p95_ms"]) == (210.0, 610.0)


def test_no_forward_at_all_divides_by_nothing() -> None:
    row = summarize_samples([make_result("small", 0, 0, 0.0)], {"small": 1}, FAST)
    assert (row["tokens_per_forward"], row["ms_per_forward"], row["times_limit"]) == (0.0, 0.0, None)


def test_a_context_is_its_cold_prompts_and_its_keystrokes() -> None:
    sample = ContextSamples(50)
    sample.cold = [(300.0, make_result("m", 12, 12, 200.0, computed=40)), (200.0, make_result("m", 12, 12, 100.0))]
    sample.keys = [(float(ms), make_result("m", 12, 6, 10.0, computed=ms // 100)) for ms in (100, 200, 300, 400)]
    row = summarize_context(sample)
    assert (row["context_tokens"], row["prompt_tokens"]) == (50, 50)
    assert row["cold"]["prefill_tokens_per_second"] == 400.0  # 40 tokens in 0.1 s
    assert (row["cold"]["computed_tokens"], row["cold"]["p50_ms"]) == (40, 200.0)
    key = row["keystroke"]
    assert (key["p50_ms"], key["p95_ms"], key["computed_tokens"]) == (200.0, 400.0, 2.5)
    assert (key["tokens"], key["forwards"], key["tokens_per_forward"]) == (12.0, 6.0, 2.0)


def test_a_level_counts_answers_over_its_wall_time_and_errors_apart() -> None:
    level = Level(users=2, seconds=2.0)
    level.answers = [(500.0, make_result("m", 30, 10, 10.0)), (900.0, make_result("m", 10, 10, 10.0, computed=10))]
    level.errors["overloaded"] += 2
    row = summarize_level(level)
    assert (row["requests"], row["answered"], row["errors"]) == (4, 2, {"overloaded": 2})
    assert (row["tokens_per_second"], row["requests_per_second"], row["tokens_per_forward"]) == (20.0, 1.0, 2.0)
    assert (row["p50_ms"], row["p95_ms"], row["reused_share"]) == (500.0, 900.0, 0.5)
