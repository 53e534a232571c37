"""A decoding round as one kernel, by itself: time by rows, and where it goes. Random weights; no checkpoint is needed.

    python -m bench.gpu_kernel --out OUT.json            # from tests/, or it on the path; the 0.5B's shape, on a GPU
    python -m bench.gpu_kernel --tiny --out OUT.json     # the tool itself, tried without a GPU

`times`: microseconds of a round by rows, with slots and without, with the output head and without, replayed in a row.
`steps`: medians over the layers of what one block did, in cycles: `ask` for weights, `wait` at the grid's barrier,
`work`, `leave` (until the next step begins). `--set slices=4 tiles_together=2` changes how products are cut.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from helpers.tiny_models import tiny_config
from helpers.whole_rounds import DEVICE, config_of, device_with, random_adapter, random_model

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.graphs import Recorder
from diffusion_core.model.kernel_shape import ROW_BUCKETS, choose_shapes
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import causal, round_mask
from diffusion_core.model.together import SequenceRows
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_inputs import WholeInputs
from diffusion_core.model.whole_round import WholeRound

STEPS = ("qkv", "attention", "out", "gate and up", "down")
PLACES = ("ask", "wait", "work", "leave")


def small_coder() -> Any:
    """The shape of Qwen2.5-Coder-0.5B."""
    return tiny_config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14, num_kv_heads=2,
        head_dim=64,
    )  # fmt: skip


def make(model: Transformer, adapter: GatedAdapter, blocks: int, changes: dict[str, int]) -> WholeRound:
    """The round, cut as it would be but for ``changes``."""
    limit = 48 * 1024
    if DEVICE == "cuda":
        limit = torch.cuda.get_device_properties(0).shared_memory_per_block_optin  # type: ignore[attr-defined]
    shapes = choose_shapes(model.config, rank=adapter.rank, blocks=blocks, shared_limit=max(limit, 220_000))
    shapes = {rows: replace(shape, **changes) for rows, shape in shapes.items()}  # type: ignore[arg-type]
    return WholeRound(model, adapter, max_positions=1024, shapes=shapes, build=device_with(0))


def inputs_of(model: Transformer, num_rows: int, context: int, has_slots: bool) -> tuple[WholeInputs, KVCache]:
    """A full round of clean rows, or a block's draft with slots behind each of its lengths: 16 or 25 rows."""
    config = model.config
    cache = KVCache(config, capacity=context + num_rows, dtype=model.dtype, device=model.device)
    cache.memory.normal_()
    cache.length = context
    rows = SequenceRows(cache, [5] * num_rows, range(context, context + num_rows), causal(num_rows), num_rows)
    if has_slots:
        block = 3 if num_rows == 16 else 4
        clean = block + 1
        places = [*range(clean), *(1 + group + slot for group in range(clean) for slot in range(block))]
        ids = [5] * clean + [config.vocab_size] * (clean * block)
        mask = round_mask(clean, block, tuple(range(1, clean + 1)))
        rows = SequenceRows(cache, ids, [context + place for place in places], mask, clean)
    inputs = WholeInputs(num_rows, config.num_heads // config.num_kv_heads, model.device)
    inputs.fill([rows])
    inputs.send()
    return inputs, cache


def microseconds(run: Callable[[], Any], repeats: int) -> float:
    """Of one of ``repeats`` runs in a row, median of three times; recorded where that can be."""
    if DEVICE == "cuda":
        run = Recorder(torch.device("cuda", torch.cuda.current_device())).record(run).replay
    run()
    found = []
    for _ in range(3):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        found.append((time.perf_counter() - started) * 1e6 / repeats)
    return median(found)


def measure_times(model: Transformer, whole: WholeRound, context: int, repeats: int) -> dict[str, float]:
    """By rows."""
    found = {}
    for rows in ROW_BUCKETS:
        for has_slots in (False, True):
            inputs, cache = inputs_of(model, rows, context, has_slots)
            name = f"{rows} rows{f', {16 if rows == 16 else 25} with slots' if has_slots else ''}"
            for chooses in (False, True):
                key = f"{name}{', head' if chooses else ''}"
                found[key] = microseconds(partial(whole.run, inputs, chooses=chooses), repeats)
            del cache
    return found


def measure_steps(
    model: Transformer, whole: WholeRound, num_rows: int, context: int, has_slots: bool
) -> dict[str, dict[str, float]]:
    """Of the timed block."""
    inputs, cache = inputs_of(model, num_rows, context, has_slots)
    for _ in range(3):
        whole.run(inputs)
    clocks = whole.clocks(num_rows)[1:]
    spent: dict[str, list[list[int]]] = {name: [[] for _ in PLACES] for name in STEPS}
    for number, (begun, asked, let_in, done) in enumerate(clocks[:-1]):
        times = asked - begun, let_in - asked, done - let_in, clocks[number + 1][0] - done
        for at, cycles in enumerate(times):
            spent[STEPS[number % len(STEPS)]][at].append(cycles)
    del cache
    return {
        name: {place: median(cycles) for place, cycles in zip(PLACES, found, strict=True)}
        for name, found in spent.items()
    }


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--context", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--timed-blocks", type=int, nargs="+", default=[0, 60])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    changes = {name: int(value) for name, value in (given.split("=") for given in args.set)}
    model = random_model(config_of() if args.tiny else small_coder())
    adapter = random_adapter(model.config, args.rank)
    blocks = 3 if args.tiny else torch.cuda.get_device_properties(0).multi_processor_count
    whole = make(model, adapter, blocks, changes)
    found: dict[str, Any] = {"times": measure_times(model, whole, args.context, args.repeats), "steps": {}}
    for block in args.timed_blocks:
        timed = make(model, adapter, blocks, changes | {"timed_block": block})
        for has_slots in (False, True):
            name = f"block {block}, {'25 rows with slots' if has_slots else '32 rows'}"
            found["steps"][name] = measure_steps(model, timed, 32, args.context, has_slots)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
