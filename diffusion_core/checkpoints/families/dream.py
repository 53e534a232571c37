"""Dream and what shares its code: Dream-Coder and DiffuCoder. Qwen2.5 shapes, denoised as a whole, shifted logits.

DiffuCoder's files name Dream's classes. Its padding token hints at it, but whether Dream-Coder's tokenizer lacks that
token could not be checked: such a folder is loaded only when its family is named. The two differ in licence and prompt.
"""

from __future__ import annotations

from dataclasses import replace

from diffusion_core.checkpoints.families.family import Family, Markers
from diffusion_core.model.config import AttentionPattern, Certainty, LogitAlignment

_CLASSES = ("DreamModel",)

DREAM = Family(
    name="dream",
    title="Dream and Dream-Coder",
    repositories=(
        "Dream-org/Dream-Coder-v0-Instruct-7B", "Dream-org/Dream-Coder-v0-Base-7B",
        "Dream-org/Dream-v0-Instruct-7B", "Dream-org/Dream-v0-Base-7B",
    ),
    licence="Apache-2.0",
    model_types=("Dream",),
    markers=(Markers(architectures=_CLASSES),),
    is_generic=True,
    qkv_bias=True,
    prompt_format="dream/1",
    alignment=LogitAlignment.SHIFTED,
    attention=AttentionPattern.BIDIRECTIONAL,
    mask_token="<|mask|>",  # noqa: S106 - no password: the name of a token
    block_size=32,
    certainty=Certainty.ENTROPY,
)  # fmt: skip

DIFFUCODER = replace(
    DREAM,
    name="diffucoder",
    title="DiffuCoder",
    repositories=(
        "apple/DiffuCoder-7B-cpGRPO", "apple/DiffuCoder-7B-Instruct", "apple/DiffuCoder-7B-Base",
    ),
    prompt_format="diffucoder/1",
    licence="apple-amlr (research only)",
    licence_must_be_accepted=True,
    licence_url="https://huggingface.co/apple/DiffuCoder-7B-cpGRPO",
    markers=(Markers(architectures=_CLASSES, tokens=("<|dlm_pad|>",), is_conclusive=False),),
    is_generic=False,
)  # fmt: skip

FAMILIES = (DREAM, DIFFUCODER)
