"""CoDA 1.7B: a Qwen3 shape, denoised as a whole, shifted logits.

Its class keeps a head of its own, whatever ``tie_word_embeddings`` says (true by default): the stored head is used.
"""

from __future__ import annotations

from diffusion_core.checkpoints.families.family import ConfigKeys, Family, Markers
from diffusion_core.model.config import AttentionPattern, Certainty, LogitAlignment

CODA = Family(
    name="coda",
    title="CoDA 1.7B",
    repositories=("Salesforce/CoDA-v0-Instruct", "Salesforce/CoDA-v0-Base"),
    licence="CC-BY-NC-4.0 (no commercial use)",
    licence_must_be_accepted=True,
    licence_url="https://creativecommons.org/licenses/by-nc/4.0/",
    model_types=("CoDA",),
    markers=(Markers(architectures=("CoDALanguageModel",)),),
    config_keys=ConfigKeys(tie_word_embeddings=""),
    qk_norm=True,
    default_head_dim=128,
    prompt_format="chatml-infill/1",
    alignment=LogitAlignment.SHIFTED,
    attention=AttentionPattern.BIDIRECTIONAL,
    mask_token="<|mask|>",  # noqa: S106 - no password: the name of a token
    block_size=32,
    certainty=Certainty.ENTROPY,
)

FAMILIES = (CODA,)
