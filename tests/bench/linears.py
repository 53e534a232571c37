"""The linear layers and the output head of a model, by number of rows and by way to multiply (linear_ways.py).

    python -m bench.linears --out linears.json
    python -m bench.linears --rows 1 8 --ways int8 OpenVINO

Milliseconds for all layers of the 0.5B (24 each of qkv, o, gate and up, down) and for its head, medians over rounds in
which every number of rows takes its turn, and the gigabytes of weights that were read a second. Every layer has
weights of its own, as in a model, so that they come from memory. What cannot run here is skipped with the reason.
Ratios within one run mean something; a busy machine takes the same from all of them, more or less.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from bench.linear_ways import WAYS, Multiply, Way

SHAPES = {"qkv": (1152, 896), "o": (896, 896), "gate_up": (9728, 896), "down": (896, 4864)}
HEAD = (151936, 896)
NUM_LAYERS = 24


def random_weights(shape: tuple[int, int], count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(shape, generator=generator) * 0.02
    return [first.roll(n, 0) for n in range(count)]


def time_rounds(multiply: Multiply, num_in: int, rows: list[int], num_rounds: int) -> dict[int, float]:
    """Median milliseconds by number of rows."""
    inputs = {m: torch.randn(m, num_in, generator=torch.Generator().manual_seed(m)).bfloat16() for m in rows}
    seconds: dict[int, list[float]] = {m: [] for m in rows}
    with torch.inference_mode():
        for m in rows:
            multiply(inputs[m])
        for _ in range(num_rounds):
            for m in rows:
                start = time.perf_counter()
                multiply(inputs[m])
                seconds[m].append(time.perf_counter() - start)
    return {m: median(found) * 1000 for m, found in seconds.items()}


def measure(way: Way, rows: list[int], num_rounds: int) -> dict[str, Any]:
    """Milliseconds by part and number of rows."""
    parts = {}
    for part, shape in (*SHAPES.items(), ("head", HEAD)):
        count = 1 if part == "head" else NUM_LAYERS
        multiply = way.make(random_weights(shape, count))
        parts[part] = time_rounds(multiply, shape[1], rows, num_rounds)
    return parts


def describe(way: Way, parts: dict[str, Any], rows: list[int]) -> None:
    num_weights = NUM_LAYERS * sum(n * k for n, k in SHAPES.values())
    layers = {m: sum(parts[part][m] for part in SHAPES) for m in rows}
    rates = {m: num_weights * way.bits / 8 / layers[m] / 1e6 for m in rows}
    print(f"{way.name:28}", "layers ms", *(f"{layers[m]:8.1f}" for m in rows))
    print(" " * 28, "     GB/s", *(f"{rates[m]:8.1f}" for m in rows))
    print(" " * 28, "  head ms", *(f"{parts['head'][m]:8.1f}" for m in rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 256])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=[""], help="parts of names; all by default")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"{torch.get_num_threads()} threads; rows", *args.rows)
    results = {}
    for way in WAYS:
        if not any(wanted in way.name for wanted in args.ways):
            continue
        try:
            results[way.name] = parts = measure(way, args.rows, args.rounds)
        except ImportError as error:
            print(f"{way.name:28} skipped: {error}")
        except Exception as error:  # whatever a package raises says that it cannot do it here
            print(f"{way.name:28} cannot run here: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
        else:
            describe(way, parts, args.rows)
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
