"""Estimates of memory against what loaded models hold, and against the tensors of full-size shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.full_size import FULL_SIZE, int4_bytes
from helpers.tiny_checkpoints import save_hf_folder, tiny_model
from helpers.tiny_models import SHAPES, tiny_config

from diffusion_core.checkpoints import footprint
from diffusion_core.checkpoints.footprint import (
    WeightForm,
    cache_bytes_per_token,
    count_parameters,
    estimate,
    is_linear,
    weight_bytes,
)
from diffusion_core.checkpoints.layout import build_empty
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import GIB
from diffusion_core.model.adapter import adapted_layers
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS, KVCache
from diffusion_core.model.packed import can_pack, why_not_served
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import quantize_weight, why_not_quantized
from diffusion_core.sampling.evaluate import PREFILL_ROWS

PARAMETERS = {
    "stable-diffcoder-8b": 8.25e9, "llada-8b": 8.02e9, "qwen2.5-7b": 7.62e9, "qwen2.5-1.5b": 1.54e9,
    "qwen2.5-0.5b": 0.494e9,
}  # fmt: skip


def meta_bytes(name: str, item_bytes: int, quantization: Quantization) -> int:
    """Sum over the model's tensors on the meta device, each in its form."""
    model, total = build_empty(FULL_SIZE[name]), 0
    for key, tensor in model.state_dict().items():
        assert tensor.device.type == "meta"
        if quantization is Quantization.INT4 and key.removesuffix(".weight") in adapted_layers(model.config):
            total += int4_bytes(tensor.shape) if key.endswith("weight") else tensor.numel() * item_bytes
        elif quantization is Quantization.INT8 and tensor.dim() == 2 and key.endswith("_proj.weight"):
            weight = quantize_weight(tensor)
            total += weight.values.numel() + 4 * weight.scales.numel()
        else:
            total += tensor.numel() * item_bytes
    return total


@pytest.mark.parametrize("name", FULL_SIZE)
@pytest.mark.parametrize("quantization", Quantization)
@pytest.mark.parametrize("item_bytes", [2, 4])
def test_the_estimate_is_the_sum_of_the_tensors(name: str, quantization: Quantization, item_bytes: int) -> None:
    form = WeightForm(item_bytes=item_bytes, quantization=quantization, packs_head=False)
    wanted = meta_bytes(name, item_bytes, quantization)
    assert weight_bytes(FULL_SIZE[name], form) == pytest.approx(wanted, rel=0.05)
    assert weight_bytes(FULL_SIZE[name], form) == wanted, "it is even exact"


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_shapes_are_those_of_the_published_sizes(name: str) -> None:
    assert count_parameters(FULL_SIZE[name]) == pytest.approx(PARAMETERS[name], rel=0.01)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", Quantization)
def test_the_estimate_is_what_a_loaded_model_weighs(
    tmp_path: Path, family: str, tied: bool, dtype: torch.dtype, quantization: Quantization
) -> None:
    if reason := why_not_served(quantization, "cpu"):
        pytest.skip(reason)
    source = save_hf_folder(tmp_path / "hf", tiny_model(family, tie_word_embeddings=tied))
    loaded = load_checkpoint(str(source), dtype=dtype, device=torch.device("cpu"), serve=True, quantize=quantization)
    # A CPU without instructions for 8 bits or for bfloat16 keeps the head as it was.
    has_int8 = quantization is not Quantization.NONE and not why_not_quantized("cpu")
    packs_head = has_int8 or can_pack(torch.device("cpu"), dtype)
    form = WeightForm(
        item_bytes=dtype.itemsize, quantization=quantization, packs_head=packs_head, has_int8_head=has_int8
    )
    assert weight_bytes(loaded.model_config, form) == loaded.model.num_bytes


def test_the_rows_it_counts_with_are_those_of_the_decoder() -> None:
    assert (footprint._PREFILL_ROWS, footprint._ROUND_ROWS) == (PREFILL_ROWS, MAX_DECODE_ROWS)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tokens_keys_and_values_weigh_what_the_cache_holds(shape: str) -> None:
    config = tiny_config(shape)
    cache = KVCache(config, capacity=256, dtype=torch.bfloat16)
    assert cache.num_bytes == 256 * cache_bytes_per_token(config, 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_layers_are_known_by_name(shape: str) -> None:
    config = tiny_config(shape)
    names = {name.removesuffix(".weight") for name in build_empty(config).state_dict() if is_linear(name)}
    assert names == set(adapted_layers(config))


@pytest.mark.parametrize("packs_head", [False, True])
def test_an_8b_fits_12_gb_in_4_bits_and_not_in_16(packs_head: bool) -> None:
    config = FULL_SIZE["stable-diffcoder-8b"]
    small, large = (
        estimate(
            config,
            WeightForm(item_bytes=2, quantization=kind, packs_head=packs_head),
            context=8192,
            kept_cache_bytes=GIB // 4,
            num_contexts=2,
        )
        for kind in (Quantization.INT4, Quantization.NONE)
    )
    assert small.total < 12e9 < 15e9 < large.weights
    assert small.caches == 2 * 8192 * 32 * 2 * 8 * 128 * 2 + GIB // 4


def test_a_longer_context_and_a_bidirectional_model_need_more() -> None:
    config, form = FULL_SIZE["llada-8b"], WeightForm(item_bytes=2)
    short, long = (estimate(config, form, context=context) for context in (1024, 4096))
    assert long.caches == 4 * short.caches
    assert estimate(config, form, context=4096, sees_all=True).work > long.work
    assert estimate(config, form, context=10**9) == estimate(config, form, context=config.max_position_embeddings)
