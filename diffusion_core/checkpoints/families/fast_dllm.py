"""Fast-dLLM v2: Qwen2.5 trained on into block diffusion with shifted logits; blocks of 32 in parts of 8."""

from __future__ import annotations

from diffusion_core.checkpoints.families.family import Family, Markers
from diffusion_core.model.config import AttentionPattern, CommitForward, LogitAlignment

FAST_DLLM_V2 = Family(
    name="fast-dllm-v2",
    title="Fast-dLLM v2",
    repositories=("Efficient-Large-Model/Fast_dLLM_v2_1.5B", "Efficient-Large-Model/Fast_dLLM_v2_7B"),
    licence="Apache-2.0",
    model_types=("Fast_dLLM_Qwen",),
    markers=(Markers(keys=("bd_size",)),),
    qkv_bias=True,
    prompt_format="chatml/1",
    alignment=LogitAlignment.SHIFTED,
    attention=AttentionPattern.BLOCK_CAUSAL,
    commit=CommitForward.APART,
    mask_token="|<MASK>|",  # noqa: S106 - no password: the name of a token
    block_size=32,
    block_key="bd_size",
    sub_block_size=8,
)

FAMILIES = (FAST_DLLM_V2,)
