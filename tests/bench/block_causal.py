"""Block-causal decoding of Stable-DiffCoder's shape: commits apart, commits merged, and the family's own sampler.

    python -m bench.block_causal --reference FOLDER --layers 16 --width 1024 --out OUT.json

The weights are random and the schedule is static, so that every variant runs the same steps whatever the tokens are:
what is measured is the cost of a step and the number of forwards. FOLDER holds ``modeling_stable_diffcoder.py`` of the
published checkpoint and runs with the transformers version that it was written for (5.3.0); without it only our two
schedules are timed. Variants take turns; figures are medians. The clock starts behind the prompt for ours, and the
reference's prompt forward is timed alone and taken off.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from diffusion_core.checkpoints.export import reference_tensors
from diffusion_core.checkpoints.families.recognise import find_family
from diffusion_core.engine.loaded_model import build_captured
from diffusion_core.model.config import CommitForward, DiffusionConfig, DrafterKind, ModelConfig
from diffusion_core.model.packed import can_pack
from diffusion_core.model.transformer import Transformer
from diffusion_core.requests import SamplingParams
from diffusion_core.sampling.asking import run_alone
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.parallel import ParallelPolicy
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache
from diffusion_core.sampling.unmask import select_fixed

MASK, BLOCK = 5, 4
FAMILY = find_family("stable-diffcoder")


def random_model(given: argparse.Namespace, dtype: torch.dtype, device: torch.device) -> Transformer:
    """A model of the family's shape with random weights."""
    config = ModelConfig(
        vocab_size=given.vocab, hidden_size=given.width, intermediate_size=given.width * 7 // 2,
        num_layers=given.layers, num_heads=given.width // 64, num_kv_heads=given.width // 256, head_dim=64,
        rope_theta=500000.0, max_position_embeddings=8192,
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


def make_ours(model: Transformer, commit: CommitForward, steps: int, *, capture: str) -> Callable[..., Any]:
    """A run of our policy: tokens, seconds behind the prompt, forwards."""
    contract = DiffusionConfig(
        prompt_format="plain/1", alignment=FAMILY.alignment, attention=FAMILY.attention, drafter=DrafterKind.MODEL,
        mask_token_id=MASK, block_size=BLOCK, commit=commit,
    )  # fmt: skip
    captured = build_captured(model, None, None, capture=capture, max_positions=1024)
    denoiser = Denoiser(model, contract, captured=captured)

    def run(prompt: list[int], count: int) -> tuple[list[int], float, int]:
        cache = SequenceCache.create(denoiser, len(prompt) + count + BLOCK)
        sequence = DecodingSequence(denoiser, list(prompt), cache, num_prompt=len(prompt))
        for _ in sequence.prefill():
            pass
        policy = ParallelPolicy(
            TokenChooser(SamplingParams(), [MASK]),
            block_size=BLOCK,
            select=lambda confidence, is_masked: select_fixed(confidence, is_masked, BLOCK // steps),
        )
        begin = time.perf_counter()
        while len(sequence.answer) < count:
            run_alone(policy.step(sequence))
        return sequence.answer[:count], time.perf_counter() - begin, sequence.num_forwards

    return run


def make_reference(folder: Path, model: Transformer, steps: int) -> Callable[..., Any]:
    """A run of the published sampler on the same tensors."""
    from transformers import LlamaConfig

    sys.path.insert(0, str(folder))
    module = importlib.import_module("modeling_stable_diffcoder")
    shape = model.config
    config = LlamaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers, num_attention_heads=shape.num_heads, head_dim=shape.head_dim,
        num_key_value_heads=shape.num_kv_heads, rms_norm_eps=shape.rms_norm_eps, tie_word_embeddings=False,
        rope_parameters={"rope_theta": shape.rope_theta, "rope_type": "default"},
    )  # fmt: skip
    # Its mask is bfloat16: torch's SDPA takes it beside bfloat16 weights only.
    config._attn_implementation = "sdpa" if model.dtype is torch.bfloat16 else "eager"
    with torch.device(model.device):
        reference = module.StableDiffcoderForCausalLM(config).to(model.dtype).eval()
    reference.load_state_dict(reference_tensors(model, FAMILY))

    def run(prompt: list[int], count: int) -> tuple[list[int], float, int]:
        ids = torch.tensor([prompt], device=model.device)
        mask = reference._make_block_causal_mask(len(prompt), BLOCK, model.device, dtype=torch.bfloat16)
        begin = time.perf_counter()
        with torch.no_grad():
            reference(ids, attention_mask=mask, use_cache=True).logits[0, -1, 0].item()
        prefill = time.perf_counter() - begin
        begin = time.perf_counter()
        found, forwards = reference.generate_block(
            ids, steps=count // BLOCK * steps, gen_length=count, block_length=BLOCK, mask_id=MASK, threshold=None
        )
        tokens = found[0, len(prompt) :].tolist()
        return tokens, time.perf_counter() - begin - prefill, forwards

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    model = random_model(given, dtype, device)
    size = sum(parameter.numel() for parameter in model.parameters())
    variants: dict[str, Callable[..., Any]] = {}
    if given.reference is not None:
        variants["reference"] = make_reference(given.reference, model, given.steps)
    if can_pack(device, dtype):
        model.pack()
    capture = "fast" if device.type == "cuda" else "off"
    for commit in CommitForward:
        variants[f"ours, {commit.value}"] = make_ours(model, commit, given.steps, capture=capture)
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(9, given.vocab, (given.prompt,), generator=generator).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    texts, forwards = {}, {}
    for turn in range(given.repeat + 1):
        for name, run in variants.items():
            tokens, taken, forwards[name] = run(prompt, given.tokens)
            texts[name] = tokens
            if turn:  # the first turn warms up
                seconds[name].append(taken)
    rows = {
        name: {
            "tokens_per_s": round(given.tokens / median(values), 2),
            "forwards": forwards[name],
            "tokens_per_forward": round(given.tokens / forwards[name], 3),
            "ms_per_forward": round(median(values) / forwards[name] * 1000, 2),
            "same_tokens": texts[name] == texts["ours, merged"],
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
