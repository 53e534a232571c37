"""Measures how long a forward takes over its number of rows: the paper's figure 2b, on the device at hand.

A block of B tokens costs a forward of about B rows. Where the curve is flat, denoising a block together is free; the
limit below it is the time in which the memory gives the weights once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from diffusion_core.eval.bench.bandwidth import bytes_per_forward, wait_for_device
from diffusion_core.eval.bench.limits import Bandwidth, relate_to_limit
from diffusion_core.eval.report import percentile
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

if TYPE_CHECKING:
    from diffusion_core.engine.loaded_model import LoadedModel


@torch.inference_mode()
def measure_forwards(
    model: LoadedModel, text: str, *, rows: Sequence[int], context: int, repeats: int
) -> dict[int, list[float]]:
    """Milliseconds of a forward and its best tokens behind ``context`` cached ones, ``repeats`` of each number of rows.

    The best token of each row is what the lossless policies ask for; whoever samples asks for all logits.

    Every round takes all numbers in turn, so that noise hits each alike. The engine of ``model`` must be closed.
    """
    denoiser, device = model.denoiser, model.denoiser.model.device
    tokens = model.encoder.encode_text(text)[: context + 1 + max(rows)]
    tokens += [tokens[-1]] * (context + 1 + max(rows) - len(tokens))
    sequence = DecodingSequence(denoiser, tokens[: context + 1], SequenceCache.create(denoiser, len(tokens)))
    for _ in sequence.prefill():
        pass
    found: dict[int, list[float]] = {number: [] for number in rows}
    for turn in range(repeats + 1):
        for number in rows:
            wait_for_device(device)
            started = time.perf_counter()
            hidden = denoiser.evaluate(sequence.cache.base, tokens[context : context + number])
            denoiser.best(hidden)
            wait_for_device(device)
            if turn:  # the first round builds what is built on first use
                found[number].append((time.perf_counter() - started) * 1000)
    return found


def summarize_forwards(model: LoadedModel, found: dict[int, list[float]], bandwidth: Bandwidth) -> list[dict[str, Any]]:
    """JSON: one object for each number of rows."""
    num_bytes = bytes_per_forward(model.denoiser.model)
    rows = []
    for number, times in sorted(found.items()):
        median = percentile(times, 0.5)
        rows.append(
            {
                "rows": number, "forwards": len(times), "ms_per_forward": median, "p95_ms": percentile(times, 0.95),
                **relate_to_limit(median, num_bytes, bandwidth),
            }
        )  # fmt: skip
    return rows
