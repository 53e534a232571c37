"""transformers' own model with the weights of ours, for comparisons on real checkpoints."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.model.transformer import Transformer


def reference_tensors(model: Transformer) -> dict[str, torch.Tensor]:
    """The tensors of ``model`` under transformers' names, split where ours are fused; no copies."""
    c = model.config
    sizes = [c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim]
    tensors = {}
    for name, value in model.state_dict().items():
        name = name.replace("attention_norm", "input_layernorm").replace("mlp_norm", "post_attention_layernorm")
        name = name.replace("attention.", "self_attn.")
        full = name if name.startswith("lm_head") else f"model.{name}"
        if "qkv_proj" in name:
            for part, piece in zip("qkv", value.split(sizes), strict=True):
                tensors[full.replace("qkv_proj", f"{part}_proj")] = piece
        elif "gate_up_proj" in name:
            for part, piece in zip(("gate", "up"), value.chunk(2), strict=True):
                tensors[full.replace("gate_up_proj", f"{part}_proj")] = piece
        else:
            tensors[full] = value
    if c.tie_word_embeddings:
        tensors["lm_head.weight"] = model.embed_tokens.weight
    return tensors


def load_reference_of(name: str, dtype: torch.dtype) -> Qwen2ForCausalLM:
    """transformers' model with the weights of the checkpoint ``name``, mapped from the same file."""
    return load_reference(load_checkpoint(name, dtype=dtype, device=torch.device("cpu")).model)


def load_reference(model: Transformer) -> Qwen2ForCausalLM:
    """A Qwen2ForCausalLM that shares the tensors of ``model`` (a Qwen2 shape): no second copy in memory."""
    c = model.config
    config = Qwen2Config(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_layers, num_attention_heads=c.num_heads, num_key_value_heads=c.num_kv_heads,
        rms_norm_eps=c.rms_norm_eps, tie_word_embeddings=c.tie_word_embeddings,
        max_position_embeddings=c.max_position_embeddings,
        rope_parameters={"rope_theta": c.rope_theta, "rope_type": "default"},
    )  # fmt: skip
    with torch.device("meta"):
        reference = Qwen2ForCausalLM(config)
    reference.load_state_dict(reference_tensors(model), assign=True)
    # The rotary table is no parameter: made on the meta device it has to be made again.
    reference.model.rotary_emb = type(reference.model.rotary_emb)(config)
    reference.train(False)
    return reference
