"""Autoregressive shapes that the Transformer has: Llama, Qwen2 (and Qwen2.5-Coder) and Qwen3."""

from __future__ import annotations

from diffusion_core.checkpoints.families.family import Family, Markers

LLAMA = Family(
    name="llama",
    title="Llama and others of its shape",
    repositories=(),
    licence="that of the checkpoint",
    model_types=("llama",),
    markers=(Markers(architectures=("LlamaForCausalLM",)),),
    is_generic=True,
)

QWEN2 = Family(
    name="qwen2",
    title="Qwen2, Qwen2.5 and Qwen2.5-Coder",
    repositories=("Qwen/Qwen2.5-Coder-0.5B", "Qwen/Qwen2.5-Coder-1.5B", "Qwen/Qwen2.5-Coder-7B"),
    licence="Apache-2.0",
    model_types=("qwen2",),
    markers=(Markers(architectures=("Qwen2ForCausalLM",)),),
    is_generic=True,
    qkv_bias=True,
)

QWEN3 = Family(
    name="qwen3",
    title="Qwen3",
    repositories=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B"),
    licence="Apache-2.0",
    model_types=("qwen3",),
    markers=(Markers(architectures=("Qwen3ForCausalLM",)),),
    is_generic=True,
    qk_norm=True,
    default_head_dim=128,
)

FAMILIES = (LLAMA, QWEN2, QWEN3)
