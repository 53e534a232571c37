"""Tiny-A2D: small Qwen models trained on into diffusion, as blocks (bd3lm) or as a whole (mdlm).

The two kinds write the same ``config.json``: which one a folder holds must be said. Blocks lie on the absolute grid of
their training. The published sampler pads prompts on the left to whole blocks, which shifts the grid by the padding;
for prompts of whole blocks the two are the same, token for token.
"""

from __future__ import annotations

from dataclasses import replace

from diffusion_core.checkpoints.families.family import Family, Markers
from diffusion_core.model.config import AttentionPattern, LogitAlignment

_AMBIGUOUS = (Markers(is_conclusive=False),)
_MASK = "<|mask|>"

A2D_QWEN2_BD3LM = Family(
    name="a2d-qwen2-bd3lm",
    title="Tiny-A2D of Qwen2.5-Coder, block diffusion",
    repositories=("dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-bd3lm-v0.1",),
    licence="Apache-2.0",
    model_types=("a2d-qwen2",),
    markers=_AMBIGUOUS,
    qkv_bias=True,
    prompt_format="chatml/1",
    alignment=LogitAlignment.SAME_POSITION,
    attention=AttentionPattern.BLOCK_CAUSAL,
    mask_token=_MASK,
    block_size=32,
)

A2D_QWEN3_BD3LM = Family(
    name="a2d-qwen3-bd3lm",
    title="Tiny-A2D of Qwen3, block diffusion",
    repositories=("dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1",),
    licence="Apache-2.0",
    model_types=("a2d-qwen3",),
    markers=_AMBIGUOUS,
    qk_norm=True,
    default_head_dim=128,
    prompt_format="chatml/1",
    alignment=LogitAlignment.SAME_POSITION,
    attention=AttentionPattern.BLOCK_CAUSAL,
    mask_token=_MASK,
    block_size=32,
)

A2D_QWEN2_MDLM = replace(
    A2D_QWEN2_BD3LM,
    name="a2d-qwen2-mdlm",
    title="Tiny-A2D of Qwen2.5-Coder, denoised as a whole",
    repositories=("dllm-hub/Qwen2.5-Coder-0.5B-Instruct-diffusion-mdlm-v0.1",),
    prompt_format="chatml-infill/1",
    attention=AttentionPattern.BIDIRECTIONAL,
)

A2D_QWEN3_MDLM = replace(
    A2D_QWEN3_BD3LM,
    name="a2d-qwen3-mdlm",
    title="Tiny-A2D of Qwen3, denoised as a whole",
    repositories=("dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1",),
    prompt_format="chatml-infill/1",
    attention=AttentionPattern.BIDIRECTIONAL,
)

FAMILIES = (A2D_QWEN2_BD3LM, A2D_QWEN3_BD3LM, A2D_QWEN2_MDLM, A2D_QWEN3_MDLM)
