"""SDAR, dense: Qwen3 trained on into block diffusion. The variants -b8 to -b64 differ in their block alone."""

from __future__ import annotations

from diffusion_core.checkpoints.families.family import Family, Markers
from diffusion_core.model.config import AttentionPattern, LogitAlignment

SDAR = Family(
    name="sdar",
    title="SDAR (dense)",
    repositories=("JetLM/SDAR-1.7B-Chat", "JetLM/SDAR-4B-Chat", "JetLM/SDAR-8B-Chat"),
    licence="MIT",
    model_types=("sdar",),
    markers=(Markers(),),
    qk_norm=True,
    default_head_dim=128,
    prompt_format="chatml/1",
    alignment=LogitAlignment.SAME_POSITION,
    attention=AttentionPattern.BLOCK_CAUSAL,
    mask_token="<|MASK|>",  # noqa: S106 - no password: the name of a token
    mask_aliases=("<MASK>",),  # the training copy's files disagree with each other
    block_size=4,
    block_key="block_size",
)

FAMILIES = (SDAR,)
