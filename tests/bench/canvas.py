"""Decoding of a whole canvas in Dream's shape: no cache, prefix cache, dual cache, and Fast-dLLM's own sampler.

    python -m bench.canvas --reference FOLDER --layers 8 --width 512 --out OUT.json

The weights are random and the schedules are static, so that every variant runs the same steps whatever the tokens are:
what is measured is the cost of a step. FOLDER is a clone of NVlabs/Fast-dLLM (24cc59e) and runs with transformers
4.49; without it only ours is timed. Both start from a prompt of tokens, so the prompt's cost is in the figures of both.
Variants take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from diffusion_core.checkpoints.export import reference_tensors
from diffusion_core.checkpoints.families.recognise import find_family
from diffusion_core.model.config import Certainty, DiffusionConfig, DrafterKind, ModelConfig
from diffusion_core.model.packed import can_pack
from diffusion_core.model.transformer import Transformer
from diffusion_core.requests import CanvasCache, SamplingParams
from diffusion_core.sampling.asking import run_alone
from diffusion_core.sampling.canvas import BlockStart
from diffusion_core.sampling.canvas_policy import CanvasPolicy, CanvasSettings
from diffusion_core.sampling.commit_rules import ScheduledRule, decaying
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.infill_length import GivenLength
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

MASK = 5
FAMILY = find_family("dream")
CACHES = (CanvasCache.NONE, CanvasCache.PREFIX, CanvasCache.DUAL)
Run = Callable[[list[int]], tuple[list[int], int]]


def random_model(given: argparse.Namespace, dtype: torch.dtype, device: torch.device) -> Transformer:
    """A model of the family's shape with random weights; the mask is never chosen."""
    config = ModelConfig(
        vocab_size=given.vocab, hidden_size=given.width, intermediate_size=given.width * 4,
        num_layers=given.layers, num_heads=given.width // 64, num_kv_heads=max(1, given.width // 256), head_dim=64,
        rope_theta=1e6, qkv_bias=True, max_position_embeddings=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        model = Transformer(config).to(dtype)
    for name, parameter in model.named_parameters():
        if not name.endswith("norm.weight"):
            parameter.data.normal_(0, 0.05)
    assert model.lm_head is not None
    model.lm_head.weight.data[MASK] = 0
    return model.eval().requires_grad_(False)


def make_ours(model: Transformer, given: argparse.Namespace, cache: CanvasCache) -> Run:
    """Our policy under the schedule of the reference: tokens and forwards."""
    contract = DiffusionConfig(
        prompt_format="plain/1", alignment=FAMILY.alignment, attention=FAMILY.attention, drafter=DrafterKind.MODEL,
        mask_token_id=MASK,
    )  # fmt: skip
    denoiser = Denoiser(model, contract)
    block = given.tokens if cache is CanvasCache.NONE else given.block
    steps = given.steps * block // given.tokens

    def run(prompt: list[int]) -> tuple[list[int], int]:
        store = SequenceCache.create(denoiser, len(prompt) + given.tokens)
        sequence = DecodingSequence(denoiser, list(prompt), store, num_prompt=len(prompt))
        policy = CanvasPolicy(
            TokenChooser(SamplingParams()),
            ScheduledRule(decaying(steps), Certainty.ENTROPY),
            GivenLength(given.tokens),
            CanvasSettings(block_length=block, cache=cache, block_start=BlockStart.FILL),
        )
        while not run_alone(policy.step(sequence)).is_final:
            pass
        return sequence.answer, sequence.num_forwards

    return run


def make_references(folder: Path, model: Transformer, given: argparse.Namespace) -> dict[str, Run]:
    """Fast-dLLM's samplers on the same tensors; its forwards are counted by a hook."""
    holder = types.ModuleType("fast_dream")
    holder.__path__ = [str(folder / "dream" / "model")]
    sys.modules["fast_dream"] = holder
    shape = model.config
    config = importlib.import_module("fast_dream.configuration_dream").DreamConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers, num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads, rms_norm_eps=shape.rms_norm_eps, rope_theta=shape.rope_theta,
        max_position_embeddings=8192, mask_token_id=MASK, pad_token_id=0,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    with torch.device(model.device):
        reference = importlib.import_module("fast_dream.modeling_dream").DreamModel(config).to(model.dtype).eval()
    reference.load_state_dict(reference_tensors(model, FAMILY))
    blocks = importlib.import_module("fast_dream.generation_utils_block").DreamGenerationMixin
    plain = (reference._sample, reference.diffusion_generate)
    cached = tuple(types.MethodType(way, reference) for way in (blocks._sample, blocks.diffusion_generate))
    count = [0]
    reference.model.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))

    def make(cache: CanvasCache) -> Run:
        more: dict[str, Any] = {}
        if cache is not CanvasCache.NONE:
            more = {"block_length": given.block, "dual_cache": cache is CanvasCache.DUAL, "threshold": None}

        def run(prompt: list[int]) -> tuple[list[int], int]:
            reference._sample, reference.diffusion_generate = cached if more else plain
            count[0] = 0
            with contextlib.redirect_stdout(io.StringIO()):
                found = reference.diffusion_generate(
                    torch.tensor([prompt], device=model.device), max_new_tokens=given.tokens, steps=given.steps,
                    temperature=0.0, top_k=None, top_p=None, alg="entropy", **more,
                )  # fmt: skip
            return found[0, len(prompt) :].tolist(), count[0]

        return run

    return {f"Fast-dLLM, {cache.value}": make(cache) for cache in CACHES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--prompt", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    model = random_model(given, dtype, device)
    size = sum(parameter.numel() for parameter in model.parameters())
    variants = make_references(given.reference, model, given) if given.reference is not None else {}
    if can_pack(device, dtype):
        model.pack()
    variants |= {f"ours, {cache.value}": make_ours(model, given, cache) for cache in CACHES}
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(9, given.vocab, (given.prompt,), generator=generator).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    texts: dict[str, list[int]] = {}
    forwards: dict[str, int] = {}
    for turn in range(given.repeat + 1):
        for name, run in variants.items():
            begin = time.perf_counter()
            with torch.inference_mode():
                texts[name], forwards[name] = run(prompt)
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - begin)
    rows = {
        name: {
            "tokens_per_s": round(given.tokens / median(values), 2),
            "forwards": forwards[name],
            "ms_per_forward": round(median(values) / forwards[name] * 1000, 2),
            "same_as_ours": texts[name] == texts[f"ours, {name.split(', ')[1]}"],
        }
        for name, values in seconds.items()
    }
    report = {"settings": {k: str(v) for k, v in vars(given).items()}, "parameters": size, "results": rows}
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
