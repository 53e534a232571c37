"""Measurements of single rounds on a device: time by rows, bits by company, kernels."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.prefix_cache import DRAFT_ROOM
from diffusion_core.model.captured import ROW_BUCKETS, CapturedForward
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.round_choice import choose_steps, choose_whole
from diffusion_core.model.round_ops import PlainOps
from diffusion_core.model.whole_forward import WholeForward
from diffusion_core.sampling.evaluate import Denoiser

CONTEXT = 400
# `plain`: torch's own operations; `steps`: fused steps; without either the whole round is one kernel, where it can be.
WAYS = ("off", "exact_plain", "exact_steps", "exact")


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def way(model: LoadedModel, name: str, max_positions: int) -> Denoiser:
    """``model`` with rounds of that kind."""
    denoiser, base = model.denoiser, model.denoiser.model
    if name == "off":
        return dataclasses.replace(denoiser, captured=None)
    head, adapter = denoiser.draft_head, denoiser.adapter
    most = max_positions + DRAFT_ROOM
    captured: CapturedForward | WholeForward | None = None
    if "_" not in name and head is None:
        captured = choose_whole(base, adapter, max_positions=most)
    if captured is None:
        ops = PlainOps() if name.endswith("plain") else choose_steps(base, adapter)
        taps = head.tap_layers if head is not None else ()
        captured = CapturedForward(base, adapter, max_positions=most, taps=taps, ops=ops)
        captured.prepare()
    return dataclasses.replace(denoiser, captured=captured)


def prefilled(denoiser: Denoiser, num_tokens: int, seed: int = 0) -> KVCache:
    """A cache with ``num_tokens`` committed positions."""
    model = denoiser.model
    cache = KVCache(model.config, capacity=num_tokens + 2 * DRAFT_ROOM, dtype=model.dtype, device=model.device)
    tokens = random_tokens(denoiser, num_tokens, seed)
    for start in range(0, num_tokens, 256):
        part = tokens[start : start + 256]
        denoiser.evaluate(cache, part)
        cache.commit(len(part))
    return cache


def random_tokens(denoiser: Denoiser, count: int, seed: int) -> list[int]:
    """Tokens that say nothing: time does not depend on them."""
    generator = torch.Generator().manual_seed(seed)
    found: list[int] = torch.randint(0, denoiser.model.config.vocab_size // 2, (count,), generator=generator).tolist()
    return found


def time_rounds(run: Callable[[], Any], device: torch.device, repeats: int) -> dict[str, float]:
    """Milliseconds of a round: with the host waiting for each (median), and one after the other without."""
    for _ in range(3):
        run()
    alone = []
    for _ in range(repeats):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        alone.append((time.perf_counter() - started) * 1000)
    wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    wait(device)
    return {"alone_ms": median(alone), "in_a_row_ms": (time.perf_counter() - started) * 1000 / repeats}


def bytes_read(model: LoadedModel) -> int:
    """Weights that a forward reads: all but the embedding, of which it takes a few rows, where the head is another."""
    transformer = model.denoiser.model
    embedding = transformer.embed_tokens.weight
    return transformer.num_bytes - (0 if transformer.lm_head is None else embedding.numel() * embedding.element_size())


def measure_forwards(model: LoadedModel, gb_per_s: float, repeats: int, has_time: Callable[[], bool]) -> dict[str, Any]:
    """Time of a round by rows and kind, output head and choice included, against the weights' time to be read."""
    device = model.denoiser.model.device
    num_bytes = bytes_read(model)
    found: dict[str, Any] = {
        "context": CONTEXT, "weights_mb": num_bytes / 1e6, "limit_ms": num_bytes / gb_per_s / 1e6, "rows": {},
    }  # fmt: skip
    for name in WAYS:
        denoiser = way(model, name, 2 * CONTEXT)
        cache = prefilled(denoiser, CONTEXT)
        for rows in ROW_BUCKETS:
            if not has_time():
                return found
            tokens = random_tokens(denoiser, rows, rows)

            @torch.inference_mode()
            def run(denoiser: Denoiser = denoiser, cache: KVCache = cache, tokens: list[int] = tokens) -> torch.Tensor:
                if denoiser.captured is not None:
                    return denoiser.evaluate(cache, tokens, best=[])  # chosen in the round, and waited for
                return denoiser.logits(denoiser.evaluate(cache, tokens)).argmax(-1)

            times = time_rounds(run, device, repeats)
            times["over_limit"] = times["in_a_row_ms"] / found["limit_ms"]
            found["rows"].setdefault(str(rows), {})[name] = times
        if denoiser.captured is not None:
            found.setdefault("captured_mb", {})[name] = denoiser.captured.num_bytes / 1e6
            found.setdefault("kinds", {})[name] = type(denoiser.captured).__name__
    return found


def measure_slots(model: LoadedModel, repeats: int) -> dict[str, Any]:
    """A round of one clean row and seven slots with the gated adapter, against eight clean rows."""
    if model.denoiser.adapter is None or model.denoiser.mask_id is None:
        return {"skipped": "no gated adapter"}
    device, found = model.denoiser.model.device, dict[str, Any]()
    slots, clean = [5, *[model.denoiser.mask_id] * 7], random_tokens(model.denoiser, 8, 8)
    for name in ("exact_steps", "exact"):
        denoiser = way(model, name, 2 * CONTEXT)
        cache = prefilled(denoiser, CONTEXT)
        found[name] = {
            "slots": time_rounds(partial(denoiser.evaluate, cache, slots, first_slot=1), device, repeats),
            "clean": time_rounds(partial(denoiser.evaluate, cache, clean), device, repeats),
        }
    return found


def compare_bits(model: LoadedModel, starts: tuple[int, ...]) -> dict[str, Any]:
    """Rows of one round against the same rows one by one: how many have the same bits and the same best token."""
    found: dict[str, Any] = {}
    ordinary: dict[int, torch.Tensor] = {}
    for name in WAYS:
        for start in starts:
            denoiser = way(model, name, start + 200)
            tokens = random_tokens(denoiser, 40, start)
            together = denoiser.evaluate(prefilled(denoiser, start), tokens).clone()
            cache, rows = prefilled(denoiser, start), []
            for token in tokens:
                rows.append(denoiser.evaluate(cache, [token]).clone())
                cache.commit(1)
            alone = torch.cat(rows)
            expected = ordinary.setdefault(start, together).float()
            best = [denoiser.logits(hidden).argmax(-1) for hidden in (together, alone)]
            found.setdefault(name, {})[str(start)] = {
                "rows": len(tokens), "same_bits": int((together == alone).all(1).sum()),
                "same_token": int((best[0] == best[1]).sum()),
                "largest_difference": float((together - alone).abs().max()),
                "share_off_the_ordinary": float((together.float() - expected).norm() / expected.norm()),
            }  # fmt: skip
    return found


def profile_rounds(model: LoadedModel, repeats: int = 5) -> dict[str, Any]:
    """What a round of eight rows spends its time on, by kernel."""
    device = model.denoiser.model.device
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    found: dict[str, Any] = {}
    for name in ("exact_steps", "exact"):
        denoiser = way(model, name, 2 * CONTEXT)
        cache, tokens = prefilled(denoiser, CONTEXT), random_tokens(denoiser, 8, 8)
        for _ in range(3):
            denoiser.evaluate(cache, tokens, best=[])
        with torch.profiler.profile(activities=kinds) as profile:
            for _ in range(repeats):
                denoiser.evaluate(cache, tokens, best=[])
        rows = []
        for event in profile.key_averages():
            is_kernel = str(event.device_type).endswith("CUDA")
            spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
            if spent and (is_kernel or device.type != "cuda"):
                rows.append({"name": event.key[:90], "per_round": event.count / repeats, "us": spent / repeats})
        rows.sort(key=lambda row: -row["us"])
        found[name] = {
            "kernels_per_round": sum(row["per_round"] for row in rows),
            "us_per_round": sum(row["us"] for row in rows),
            "largest": rows[:25],
        }
    return found
