"""Variants of the compiled kernels side by side: forwards in turns, in one process, over the same weights.

    python -m bench.kernels --model qwen2.5-coder-0.5b --rows 1 16 64 256 FOLDER [FOLDER ...]

Each FOLDER holds sources as `diffusion_core/kernels/source` does; weights are laid out by the first one's kernels, so
that all must want the same layout (and processes differ by where their memory lies, which variants in one do not).
Times are medians, of the layers and of the best tokens, behind --context cached tokens. Equal: whether hidden states
and best tokens have the first one's bits. UNMASK_KERNELS chooses the kind.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from pathlib import Path
from unittest import mock

import torch

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.eval.bench.bandwidth import measure_bandwidth
from diffusion_core.kernels import compiler, library
from diffusion_core.kernels.kinds import usable_kinds
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.native_forward import NativeForward
from diffusion_core.model.native_matrix import NativeMatrix
from diffusion_core.model.quantization import Quantization
from diffusion_core.sampling.evaluate import Denoiser

CPU = torch.device("cpu")
PIECE = 256  # rows of a prompt at a time; their best tokens are not wanted


def open_kernels(sources: Path) -> ctypes.CDLL:
    with mock.patch.object(compiler, "_SOURCES", sources):
        return library._open(usable_kinds()[0])


class Bench:
    """A model behind a cache of text, whose forwards run in kernels that can be exchanged."""

    def __init__(self, name: str, first: ctypes.CDLL, context: int) -> None:
        with mock.patch.object(library, "_load", lambda: (first, "")):
            checkpoint = load_checkpoint(name, dtype=torch.bfloat16, device=CPU, serve=True, quantize=Quantization.INT8)
        self._denoiser = Denoiser(checkpoint.model, DiffusionConfig(prompt_format="plain/1"))
        self._users = [each for each in gc.get_objects() if type(each) in (NativeMatrix, NativeForward)]
        text = Path(argparse.__file__).read_text(encoding="utf-8")
        tokens = checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
        self._cache = KVCache(checkpoint.model.config, capacity=context + PIECE, dtype=torch.bfloat16)
        for begin in range(0, context, PIECE):
            piece = tokens[begin : min(begin + PIECE, context)]
            self._denoiser.evaluate(self._cache, piece)
            self._cache.commit(len(piece))
        self._tokens = tokens[context : context + PIECE]

    def use(self, kernels: ctypes.CDLL) -> None:
        for user in self._users:
            user._library = kernels

    def run(self, rows: int) -> tuple[float, float, list[float]]:
        """Milliseconds of the layers and of the best tokens, and numbers that show whether bits are the same."""
        began = time.perf_counter()
        hidden = self._denoiser.evaluate(self._cache, self._tokens[:rows])
        middle = time.perf_counter()
        best = self._denoiser.best(hidden) if rows < PIECE else []
        ended = time.perf_counter()
        return (middle - began) * 1e3, (ended - middle) * 1e3, [*hidden.float().flatten().tolist(), *map(float, best)]


def compare(bench: Bench, variants: dict[str, ctypes.CDLL], rows: int, repeats: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    bits: dict[str, list[float]] = {}
    for turn in range(repeats + 1):
        for name, kernels in variants.items():
            bench.use(kernels)
            layers, head, numbers = bench.run(rows)
            bits.setdefault(name, numbers)
            if turn:
                times[name].append((layers, head))
    first = next(iter(bits.values()))
    for name, found in times.items():
        layers, head = (statistics.median(each) for each in zip(*found, strict=True))
        total = statistics.median(map(sum, found))
        equal = "" if bits[name] == first else ", other bits"
        print(f"{rows:4} rows  {name:32} {layers:7.2f} + {head:5.2f} = {total:7.2f} ms{equal}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16, 64, PIECE])
    parser.add_argument("--context", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if max(arguments.rows) > PIECE:
        parser.error(f"--rows: at most {PIECE}")
    torch.set_num_threads(arguments.threads)
    variants = {str(folder): open_kernels(folder) for folder in arguments.folders}
    bench = Bench(arguments.model, next(iter(variants.values())), arguments.context)
    print(f"memory is read at {measure_bandwidth(CPU).read / 1e9:.1f} GB/s")
    with torch.inference_mode():
        for rows in arguments.rows:
            compare(bench, variants, rows, arguments.repeats)
    print(f"memory is read at {measure_bandwidth(CPU).read / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
