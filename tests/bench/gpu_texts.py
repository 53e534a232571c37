"""Measurements of whole answers on a device: tokens a second by policy and kind of round, one stream and many."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.gpu_rounds import wait, way

from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.prefix_cache import DRAFT_ROOM
from diffusion_core.requests import CompletionRequest, DecodingParams, Policy
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.drafts import LookupDraft
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache
from diffusion_core.sampling.size_times import time_sizes
from diffusion_core.sampling.stop import ScopeRule


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to decode. ``rounds`` is one of ``gpu_rounds.WAYS``; ``slots`` and ``free`` say which drafts are used.

    ``block``: slots behind each length; 0: as many as the checkpoint has learned with, or as the engine would choose by
    what sizes take (``chooses``).
    """

    name: str
    rounds: str
    policy: Policy
    slots: bool = False
    free: bool = True
    shape: RoundShape = RoundShape.ALL_LENGTHS
    block: int = 0
    chooses: bool = False


# The most telling ones first: time may be up before the last.
VARIANTS = (
    Variant("autoregressive/exact", "exact", Policy.AUTOREGRESSIVE),
    Variant("verified+slots/exact", "exact", Policy.VERIFIED, slots=True),
    Variant("verified+slots_of_3/exact", "exact", Policy.VERIFIED, slots=True, block=3),  # rounds of 16 rows
    Variant("verified+slots_chosen/exact", "exact", Policy.VERIFIED, slots=True, chooses=True),
    Variant("verified/exact", "exact", Policy.VERIFIED),
    Variant("autoregressive/exact_steps", "exact_steps", Policy.AUTOREGRESSIVE),
    Variant("verified+slots/exact_steps", "exact_steps", Policy.VERIFIED, slots=True),
    Variant("slots_only/exact", "exact", Policy.VERIFIED, slots=True, free=False),
    Variant("verified+slots_two_pass/exact", "exact", Policy.VERIFIED, slots=True, shape=RoundShape.TWO_PASS),
    Variant("confidence/exact", "exact", Policy.CONFIDENCE, slots=True),
    Variant("autoregressive/off", "off", Policy.AUTOREGRESSIVE),
    Variant("verified/off", "off", Policy.VERIFIED),
)


def decode(
    model: LoadedModel, variant: Variant, prefix: str, max_tokens: int, learned: RoundModel, *, ends_after: int = 0
) -> dict[str, Any]:
    """One answer over a cache of its own; seconds of the prompt and of the answer apart.

    ``ends_after``: as many tokens at most, in a cache for ``max_tokens``; 0: no other limit.
    """
    request = CompletionRequest(prefix=prefix, language="python", max_tokens=max_tokens)
    prompt = list(model.encoder.encode_completion(request, max_tokens).tokens)
    denoiser, device = model.denoiser, model.denoiser.model.device
    cache = SequenceCache.create(denoiser, len(prompt) + max_tokens + DRAFT_ROOM)
    sequence = DecodingSequence(denoiser, prompt, cache, num_prompt=len(prompt))
    task = DecodingTask(
        max_tokens=ends_after or max_tokens,
        decoding=DecodingParams(policy=variant.policy, use_mask_drafts=variant.slots, block_size=variant.block),
        stop_rules=(ScopeRule(prefix),), stop_token_ids=model.stop_token_ids, banned_token_ids=model.banned_token_ids,
        round_shape=variant.shape,
    )  # fmt: skip
    sources = [LookupDraft(prompt)] if variant.free else []
    decoder = BlockDecoder(denoiser, model.tokenizer, sequence, task, sources, rounds=learned)
    wait(device)
    begun = read = time.perf_counter()
    for progress in decoder.run():
        if progress.num_prefilled:
            wait(device)
            read = time.perf_counter()
    wait(device)
    done = time.perf_counter()
    return {
        "tokens": decoder.answer.num_tokens, "forwards": sequence.num_forwards, "text": decoder.answer.text,
        "ids": sequence.answer, "prompt_tokens": sequence.num_prompt,
        "prefill_s": read - begun, "decode_s": done - read,
    }  # fmt: skip


def measure_streams(
    model: LoadedModel, prefixes: Sequence[str], max_tokens: int, has_time: Callable[[], bool]
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Tokens a second of every variant over the same prompts, and the answers themselves."""
    table: dict[str, Any] = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    for variant in VARIANTS:
        if variant.slots and model.denoiser.mask_id is None:
            continue
        used = dataclasses.replace(model, denoiser=way(model, variant.rounds, 1024))
        learned = RoundModel(size_ms=time_sizes(used.denoiser) if variant.chooses else {})
        for prefix in prefixes:  # captures whatever rounds the prompts need
            decode(used, variant, prefix, max_tokens, RoundModel(), ends_after=2)
        rows = []
        for prefix in prefixes:
            if not has_time():
                break
            rows.append(decode(used, variant, prefix, max_tokens, learned))
        if rows:
            answers[variant.name] = rows
            table[variant.name] = summarise(rows)
            if variant.chooses:
                table[variant.name] |= {"size_ms": learned.size_ms, "block": learned.plan and learned.plan.block_size}
    return table, answers


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Totals of one variant."""
    tokens, forwards = sum(row["tokens"] for row in rows), sum(row["forwards"] for row in rows)
    decode_s, prefill_s = sum(row["decode_s"] for row in rows), sum(row["prefill_s"] for row in rows)
    return {
        "answers": len(rows), "tokens": tokens, "tokens_per_forward": tokens / max(1, forwards),
        "ms_per_forward": 1000 * decode_s / max(1, forwards), "tokens_per_s": tokens / decode_s,
        "tokens_per_s_with_prompt": tokens / (decode_s + prefill_s),
        "prompt_tokens_per_s": sum(row["prompt_tokens"] for row in rows) / max(prefill_s, 1e-9),
    }  # fmt: skip


def compare_texts(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each verified variant against the autoregressive one with the same rounds, item by item."""
    found: dict[str, Any] = {}
    for name, rows in answers.items():
        reference = answers.get(f"autoregressive/{name.split('/')[1]}")
        if reference is None or not name.startswith(("verified", "slots")):
            continue
        pairs = list(zip(rows, reference, strict=False))
        differ = [i for i, (a, b) in enumerate(pairs) if a["text"] != b["text"]]
        found[name] = {"compared": len(pairs), "identical": len(pairs) - len(differ), "items_that_differ": differ}
        if differ:
            a, b = pairs[differ[0]]
            first = next((i for i, (x, y) in enumerate(zip(a["ids"], b["ids"], strict=False)) if x != y), None)
            found[name]["first_difference_at_token"] = first
    return found


def measure_crowds(
    config: EngineConfig,
    prefixes: Sequence[str],
    sizes: Sequence[int],
    max_tokens: int,
    has_time: Callable[[], bool],
) -> dict[str, Any]:
    """Total tokens a second of an engine that is given many requests at once, as it is: a forward each in turn."""
    found: dict[str, Any] = {}
    engine = Engine(dataclasses.replace(config, max_queued=max(sizes) + 8))
    engine.start()
    try:
        engine.submit(CompletionRequest(prefix=prefixes[0], max_tokens=8)).future.result(300)
        for size in sizes:
            if not has_time():
                break
            # A line of its own in front: requests share no prefix.
            requests = [
                CompletionRequest(
                    prefix=f"# {size} {i}\n{prefixes[i % len(prefixes)]}", language="python", max_tokens=max_tokens
                )
                for i in range(size)
            ]
            started = time.perf_counter()
            results = [job.future.result(600) for job in [engine.submit(request) for request in requests]]
            seconds = time.perf_counter() - started
            tokens, forwards = sum(r.num_tokens for r in results), sum(r.num_forwards for r in results)
            found[str(size)] = {
                "tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds,
                "tokens_per_forward": tokens / max(1, forwards),
                "mean_answer_s": sum(r.timings.total_ms for r in results) / 1000 / size,
            }  # fmt: skip
    finally:
        engine.close()
    return found
