"""Open-dCoder 0.5B: Qwen2.5-Coder trained on into a diffusion model of whole texts, shifted logits.

Its ``config.json`` is that of Qwen2; only the mask token that its training added gives it away, and that is not enough
to be sure of: the family must be named.
"""

from __future__ import annotations

from diffusion_core.checkpoints.families.family import Family, Markers
from diffusion_core.model.config import AttentionPattern, LogitAlignment

OPEN_DCODER = Family(
    name="open-dcoder",
    title="Open-dCoder 0.5B",
    repositories=("fredzzp/open-dcoder-0.5B",),
    licence="Apache-2.0",
    model_types=("qwen2",),
    markers=(Markers(architectures=("Qwen2ForCausalLM",), tokens=("<M>",), is_conclusive=False),),
    qkv_bias=True,
    prompt_format="infill/1",
    alignment=LogitAlignment.SHIFTED,
    attention=AttentionPattern.BIDIRECTIONAL,
    mask_token="<M>",  # noqa: S106 - no password: the name of a token
    mask_aliases=("[MASK]",),  # the name that its samplers add where the tokenizer has none
    block_size=32,
)

FAMILIES = (OPEN_DCODER,)
