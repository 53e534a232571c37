"""Plans for several GPUs: parts against the tensors of full-size shapes, and against a tiny model that is cut up."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from helpers.full_size import FULL_SIZE, int4_bytes
from helpers.tiny_models import SHAPES, tiny_transformer

from diffusion_core.checkpoints.footprint import WeightForm, cache_bytes_per_token, weight_bytes
from diffusion_core.checkpoints.layout import build_empty
from diffusion_core.checkpoints.shard_plan import GpuPlan, Shard, ShardPlan, plan_shards
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.layers import ForwardContext, TransformerLayer
from diffusion_core.model.masks import Visibility, causal
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.transformer import Transformer

PLAIN = WeightForm(item_bytes=2, packs_head=False)


def cut(tensor: torch.Tensor, shard: Shard) -> torch.Tensor:
    if shard.axis is None:
        return tensor
    return torch.cat([tensor.narrow(shard.axis, start, stop - start) for start, stop in shard.spans], shard.axis)


@pytest.mark.parametrize("name", FULL_SIZE)
@pytest.mark.parametrize("num_gpus", [1, 2, 4, 8])
def test_parts_are_those_of_the_tensors_on_the_meta_device(name: str, num_gpus: int) -> None:
    config = FULL_SIZE[name]
    plan, state = plan_shards(config, num_gpus), build_empty(config).state_dict()
    held = dict.fromkeys(state, 0)
    for gpu in plan.gpus:
        assert [shard.name for shard in gpu.shards] == list(dict.fromkeys(shard.name for shard in gpu.shards))
        assert {shard.name for shard in gpu.shards} == set(state)
        total = 0
        for shard in gpu.shards:
            part = cut(state[shard.name], shard)
            assert tuple(part.shape) == shard.shape
            held[shard.name] += part.numel()
            total += part.numel() * 2
        assert gpu.weight_bytes(PLAIN) == total
    heads = config.num_heads + 2 * config.num_kv_heads * (plan.kv_copies if plan.splits_attention else 1)
    for key, tensor in state.items():
        if key in plan.replicated:
            assert held[key] == num_gpus * tensor.numel()
        elif "qkv_proj" in key:  # key heads that several hold count as often
            assert held[key] == tensor.numel() * heads // (config.num_heads + 2 * config.num_kv_heads)
        else:
            assert held[key] == tensor.numel()


@pytest.mark.parametrize("name", FULL_SIZE)
def test_one_gpu_holds_what_the_footprint_says(name: str) -> None:
    config = FULL_SIZE[name]
    (gpu,) = plan_shards(config, 1).gpus
    for kind in Quantization:
        form = replace(PLAIN, quantization=kind)
        assert gpu.weight_bytes(form) == weight_bytes(config, form)
    assert gpu.cache_bytes(config, 100, 2) == 100 * cache_bytes_per_token(config, 2)


@pytest.mark.parametrize("num_gpus", [2, 4])
def test_parts_can_be_held_in_4_bits(num_gpus: int) -> None:
    config, form = FULL_SIZE["qwen2.5-7b"], replace(PLAIN, quantization=Quantization.INT4)
    layer = build_empty(config).state_dict()
    for gpu in plan_shards(config, num_gpus).gpus:
        total = 0
        for shard in gpu.shards:
            part = cut(layer[shard.name], shard)
            is_quantized = shard.name.endswith("_proj.weight")
            total += int4_bytes(part.shape) if is_quantized else part.numel() * 2
        assert gpu.weight_bytes(form) == total


def check(name: str, num_gpus: int) -> ShardPlan:
    return plan_shards(FULL_SIZE[name], num_gpus)


def test_what_divides_and_what_does_not() -> None:
    for n in (2, 4):
        plan = check("stable-diffcoder-8b", n)
        assert plan.notes == ()
        assert (plan.gpus[0].num_heads, plan.gpus[0].num_kv_heads) == (32 // n, 8 // n)
        assert plan.sums_per_forward == 64
        assert all("norm" in name for name in plan.replicated)
    two, four = check("qwen2.5-1.5b", 2), check("qwen2.5-1.5b", 4)
    assert two.notes == ()
    assert four.notes == ("2 key heads on 4 GPUs: each is held by 2",)
    assert (four.gpus[0].num_heads, four.gpus[0].num_kv_heads) == (3, 1)
    small = check("qwen2.5-0.5b", 4)
    assert not small.splits_attention and small.splits_mlp
    assert "14 heads over 2 key heads cannot be divided among 4 GPUs" in small.notes[0]
    assert small.gpus[3].cache_bytes(small.config, 10, 2) == 10 * cache_bytes_per_token(small.config, 2)
    assert check("stable-diffcoder-8b", 1).sums_per_forward == 0
    odd = plan_shards(replace(FULL_SIZE["qwen2.5-0.5b"], intermediate_size=4880), 2)
    assert "4880 has no 2 parts of whole groups" in odd.notes[0]
    for wrong in (0, -1):
        with pytest.raises(CheckpointError, match="cannot be divided among"):
            check("qwen2.5-0.5b", wrong)


def part_of(model: Transformer, gpu: GpuPlan, plan: ShardPlan) -> Transformer:
    """A model of a GPU's heads and feed-forward, with its parts of the weights."""
    inner = next(prod(s.shape[:1]) for s in gpu.shards if s.name.endswith("gate_up_proj.weight")) // 2
    vocab = next(s.shape[0] for s in gpu.shards if s.name == "embed_tokens.weight")
    changed = {"num_heads": gpu.num_heads, "num_kv_heads": gpu.num_kv_heads, "intermediate_size": inner}
    config: ModelConfig = replace(plan.config, **changed, vocab_size=vocab)
    local = Transformer(config).eval().requires_grad_(False)
    state = model.state_dict()
    local.load_state_dict({shard.name: cut(state[shard.name], shard).contiguous() for shard in gpu.shards})
    return local


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kv_heads", "num_gpus"), [(4, 2), (2, 2), (2, 4), (1, 2), (2, 3), (8, 8)])
def test_the_parts_of_a_tiny_model_compute_the_whole(shape: str, kv_heads: int, num_gpus: int) -> None:
    model = tiny_transformer(
        shape, num_heads=8, num_kv_heads=kv_heads, intermediate_size=256 if num_gpus == 8 else 128, vocab_size=272
    )
    plan = plan_shards(model.config, num_gpus)
    parts = [part_of(model, gpu, plan) for gpu in plan.gpus]
    ids, rows = torch.arange(40, 64).unsqueeze(0), 24
    positions = torch.arange(rows).unsqueeze(0)
    wanted = model.logits(model(ids, positions, causal(rows)))
    # Embedding and head by tokens: each GPU gives the rows of its own.
    x = torch.cat([part.embed_tokens.weight for part in parts])[ids]
    context = ForwardContext(model.rope(positions, x.dtype), Visibility(causal(rows).unsqueeze(0)), None, None, rows)
    for number in range(model.config.num_layers):
        layers = [part.layers[number] for part in parts]
        assert all(isinstance(layer, TransformerLayer) for layer in layers)
        first = layers if plan.splits_attention else layers[:1]
        x = x + torch.stack([layer.attention(layer.attention_norm(x), context) for layer in first]).sum(0)
        second = layers if plan.splits_mlp else layers[:1]
        x = x + torch.stack([layer.mlp(layer.mlp_norm(x), context) for layer in second]).sum(0)
    found = torch.cat([part.logits(part.norm(x)) for part in parts], -1)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert plan.splits_attention == (num_gpus != 3)
