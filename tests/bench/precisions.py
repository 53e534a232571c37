"""Precisions side by side on a real model: how far their scores are from float32's, and what a forward costs.

    python -m bench.precisions --model qwen2.5-coder-0.5b --forms float32 bfloat16 int8 int4

Texts are the repository's own files. Agreement: of all positions of a text, where the best token is float32's. Times
are medians of forwards in turn, rounds of all forms one after the other, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint
from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import causal
from diffusion_core.model.quantization import Quantization
from diffusion_core.sampling.evaluate import Denoiser

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("diffusion_core/net/client.py", "diffusion_core/engine/job.py", "diffusion_core/sampling/stop.py",
         "train/trainer.py", "lsp_server/demo.py", "diffusion_core/cli/edit.py")  # fmt: skip
FORMS = {
    "float32": (torch.float32, Quantization.NONE),
    "bfloat16": (torch.bfloat16, Quantization.NONE),
    "int8": (torch.bfloat16, Quantization.INT8),
    "int4": (torch.bfloat16, Quantization.INT4),
}
ROWS = (1, 4, 16)


def load(name: str, form: str) -> Checkpoint:
    dtype, kind = FORMS[form]
    return load_checkpoint(name, dtype=dtype, device=torch.device("cpu"), serve=True, quantize=kind)


@torch.inference_mode()
def scores(checkpoint: Checkpoint, tokens: list[int]) -> torch.Tensor:
    """Logits [T, V] of a text."""
    model, ids = checkpoint.model, torch.tensor([tokens])
    return model.logits(model(ids, torch.arange(len(tokens))[None], causal(len(tokens)))[0])


@torch.inference_mode()
def continued(checkpoint: Checkpoint, tokens: list[int], number: int) -> list[int]:
    """The greedy continuation, one by one."""
    denoiser = Denoiser(checkpoint.model, DiffusionConfig(prompt_format="plain/1"))
    cache = KVCache(checkpoint.model.config, capacity=len(tokens) + number, dtype=checkpoint.model.dtype)
    denoiser.evaluate(cache, tokens[:-1])
    cache.commit(len(tokens) - 1)
    found = [tokens[-1]]
    for _ in range(number):
        found.append(int(denoiser.logits(denoiser.evaluate(cache, found[-1:])).argmax()))
        cache.commit(1)
    return found[1:]


def compare(loaded: dict[str, Checkpoint], num_tokens: int, num_greedy: int) -> None:
    first = next(iter(loaded))
    tokenizer = loaded[first].tokenizer
    print(f"| form | difference of logits | best token as {first} | sure ones | greedy prefix of {num_greedy} | GB |")
    texts = [tokenizer.encode((ROOT / t).read_text(), add_special_tokens=False).ids[:num_tokens] for t in TEXTS]
    wanted = [scores(loaded[first], text) for text in texts]
    answers = [continued(loaded[first], text[: num_tokens // 2], num_greedy) for text in texts]
    for form, checkpoint in loaded.items():
        errors, same, sure, prefixes = [], [], [], []
        for text, reference, answer in zip(texts, wanted, answers, strict=True):
            found = scores(checkpoint, text)
            errors.append(float((found - reference).norm() / reference.norm()))
            agrees = found.argmax(-1) == reference.argmax(-1)
            best = reference.topk(2, -1).values
            same.append(agrees)
            sure.append(agrees[best[:, 0] - best[:, 1] > 1.0])
            own = continued(checkpoint, text[: num_tokens // 2], num_greedy)
            prefixes.append(next((i for i, (a, b) in enumerate(zip(own, answer, strict=True)) if a != b), num_greedy))
        print(
            f"| {form} | {statistics.mean(errors):.4f} | {torch.cat(same).float().mean():.3f} | "
            f"{torch.cat(sure).float().mean():.4f} | {statistics.mean(prefixes):.1f} | "
            f"{checkpoint.model.num_bytes / 1e9:.3f} |",
            flush=True,
        )


def clock(loaded: dict[str, Checkpoint], rounds: int) -> None:
    print(f"| ms per forward (median of {rounds}) | " + " | ".join(f"{n} rows" for n in ROWS) + " | 256 rows |")
    times: dict[tuple[str, int], list[float]] = {}
    caches = {}
    for form, checkpoint in loaded.items():
        denoiser = Denoiser(checkpoint.model, DiffusionConfig(prompt_format="plain/1"))
        cache = KVCache(checkpoint.model.config, capacity=512, dtype=checkpoint.model.dtype)
        denoiser.evaluate(cache, list(range(500, 628)))
        cache.commit(128)
        caches[form] = denoiser, cache
    for number in range(rounds + 1):
        for rows in (*ROWS, 256):
            if rows == 256 and number % 4:
                continue
            for form, (denoiser, cache) in caches.items():
                start = time.perf_counter()
                hidden = denoiser.evaluate(cache, list(range(700, 700 + rows)))
                denoiser.logits(hidden[:16])
                if number:
                    times.setdefault((form, rows), []).append((time.perf_counter() - start) * 1e3)
    for form in loaded:
        cells = [f"{statistics.median(times.get((form, rows), [float('nan')])):.1f}" for rows in (*ROWS, 256)]
        print(f"| {form} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--greedy", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    loaded = {}
    for form in arguments.forms:
        start = time.perf_counter()
        loaded[form] = load(arguments.model, form)
        print(f"{form}: loaded in {time.perf_counter() - start:.1f} s", flush=True)
    compare(loaded, arguments.tokens, arguments.greedy)
    clock(loaded, arguments.rounds)


if __name__ == "__main__":
    main()
