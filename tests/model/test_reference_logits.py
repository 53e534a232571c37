"""Our Transformer against transformers' own models, tiny and random, in float32."""

from __future__ import annotations

import pytest
import torch
from bench.reference_model import reference_tensors
from helpers.tiny_models import SHAPES, tiny_transformer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import causal
from diffusion_core.model.transformer import Transformer

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}


def reference_of(model: Transformer, shape: str, rope: dict[str, object]) -> PreTrainedModel:
    """The same weights in transformers' model."""
    c = model.config
    config_class, model_class = FAMILIES[shape]
    reference = model_class(
        config_class(
            vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
            num_hidden_layers=c.num_layers, num_attention_heads=c.num_heads, num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim, rms_norm_eps=c.rms_norm_eps, tie_word_embeddings=c.tie_word_embeddings,
            max_position_embeddings=c.max_position_embeddings,
            rope_parameters={"rope_theta": c.rope_theta, **rope},
        )
    ).eval()  # fmt: skip
    reference.load_state_dict(reference_tensors(model))
    return reference


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rope", [{"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}, LLAMA3])
def test_logits_equal_transformers(shape: str, rope: dict[str, object]) -> None:
    model = tiny_transformer(shape, rope_scaling=None if rope["rope_type"] == "default" else rope)
    reference = reference_of(model, shape, rope)
    ids = torch.randint(0, 256, (2, 150), generator=torch.Generator().manual_seed(3))
    positions = torch.arange(150).expand(2, -1)
    with torch.inference_mode():
        ours = model.logits(model(ids, positions, causal(150)))
        theirs = reference(ids).logits
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("splits", [[150], [1] * 150, [7, 120, 1, 1, 21], [97, 53], [128, 22]])
def test_any_split_over_the_cache_equals_one_pass(shape: str, splits: list[int]) -> None:
    model = tiny_transformer(shape)
    ids = torch.randint(0, 256, (1, 150), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        whole = model(ids, torch.arange(150)[None], causal(150))
        cache, start, parts = KVCache(model.config, capacity=16, dtype=model.dtype), 0, []
        for size in splits:
            places = torch.arange(start, start + size)[None]
            parts.append(model(ids[:, start : start + size], places, causal(size), cache=cache))
            cache.commit(size)
            start += size
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_equals_its_singles(shape: str) -> None:
    model = tiny_transformer(shape)
    ids = torch.randint(0, 256, (5, 40), generator=torch.Generator().manual_seed(5))
    places = torch.arange(40).expand(5, -1)
    with torch.inference_mode():
        together = model(ids, places, causal(40))
        alone = torch.cat([model(ids[i : i + 1], places[:1], causal(40)) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
