"""LLaDA 8B and 1.5: a Llama shape in OLMo's names and keys, denoised as a whole, logits of their own position."""

from __future__ import annotations

from types import MappingProxyType

from diffusion_core.checkpoints.families.family import ConfigKeys, Family, Markers
from diffusion_core.checkpoints.weights import Naming
from diffusion_core.model.config import AttentionPattern, LogitAlignment

OLMO = Naming(
    embedding="model.transformer.wte",
    final_norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
    attention_norm="model.transformer.blocks.{i}.attn_norm",
    query="model.transformer.blocks.{i}.q_proj",
    key="model.transformer.blocks.{i}.k_proj",
    value="model.transformer.blocks.{i}.v_proj",
    output="model.transformer.blocks.{i}.attn_out",
    query_norm="model.transformer.blocks.{i}.q_norm",
    key_norm="model.transformer.blocks.{i}.k_norm",
    mlp_norm="model.transformer.blocks.{i}.ff_norm",
    gate="model.transformer.blocks.{i}.ff_proj",
    up="model.transformer.blocks.{i}.up_proj",
    down="model.transformer.blocks.{i}.ff_out",
)

LLADA = Family(
    name="llada",
    title="LLaDA 8B and 1.5",
    repositories=("GSAI-ML/LLaDA-8B-Instruct", "GSAI-ML/LLaDA-1.5", "GSAI-ML/LLaDA-8B-Base"),
    licence="MIT",
    model_types=("llada",),
    markers=(Markers(architectures=("LLaDAModelLM",)),),
    config_keys=ConfigKeys(
        vocab_size="embedding_size",
        hidden_size="d_model",
        intermediate_size="mlp_hidden_size",
        num_layers="n_layers",
        num_heads="n_heads",
        num_kv_heads="n_kv_heads",
        head_dim="",
        tie_word_embeddings="weight_tying",
        max_position_embeddings="max_sequence_length",
    ),
    # OLMo's code can be many models; the published weights are this one.
    required=MappingProxyType(
        {
            "activation_type": "silu",
            "alibi": False,
            "attention_layer_norm": False,
            "block_group_size": 1,
            "block_type": "llama",
            "include_bias": False,
            "include_qkv_bias": False,
            "input_emb_norm": False,
            "layer_norm_type": "rms",
            "layer_norm_with_affine": True,
            "rope": True,
            "scale_logits": False,
        }
    ),
    naming=OLMO,
    prompt_format="llada/1",
    alignment=LogitAlignment.SAME_POSITION,
    attention=AttentionPattern.BIDIRECTIONAL,
    mask_token="<|mdm_mask|>",  # noqa: S106 - no password: the name of a token
    block_size=32,
)

FAMILIES = (LLADA,)
