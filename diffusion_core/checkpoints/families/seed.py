"""Seed-Coder and the diffusion model that was trained from it: one shape, one tokenizer, two ways to decode.

Both are stored in Llama's layout and both say ``model_type: llama``. Stable-DiffCoder is told by the class or the code
file that its ``config.json`` names (revisions before 4656ed0 name it in ``auto_map`` only). The tokenizer proves
nothing: the slot of the mask token is in that of the base as well.
"""

from __future__ import annotations

from diffusion_core.checkpoints.families.family import Family, Markers
from diffusion_core.model.config import AttentionPattern, LogitAlignment

FIM_TOKENS = ("<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>")
SEED_FORMAT = "seed-coder/1"

SEED_CODER = Family(
    name="seed-coder",
    title="Seed-Coder",
    repositories=("ByteDance-Seed/Seed-Coder-8B-Base", "ByteDance-Seed/Seed-Coder-8B-Instruct"),
    licence="MIT",
    model_types=("llama",),
    markers=(Markers(architectures=("LlamaForCausalLM",), tokens=FIM_TOKENS),),
    prompt_format=SEED_FORMAT,
)

STABLE_DIFFCODER = Family(
    name="stable-diffcoder",
    title="Stable-DiffCoder",
    repositories=("ByteDance-Seed/Stable-DiffCoder-8B-Base", "ByteDance-Seed/Stable-DiffCoder-8B-Instruct"),
    licence="MIT",
    model_types=("llama",),
    markers=(Markers(code=("diffcoder",)),),
    prompt_format=SEED_FORMAT,
    alignment=LogitAlignment.SAME_POSITION,
    attention=AttentionPattern.BLOCK_CAUSAL,
    mask_token="<[MASK_TOKEN]>",  # noqa: S106 - no password: the name of a token
    block_size=4,
)

FAMILIES = (STABLE_DIFFCODER, SEED_CODER)
