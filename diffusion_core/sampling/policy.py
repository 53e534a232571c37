"""What a policy is: one model call at a time, so that a cancel is never more than one forward away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import DrafterKind
from diffusion_core.requests import Policy
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import DecodingSequence


@dataclass(frozen=True, slots=True)
class Step:
    """Outcome of one forward: tokens that are now committed, and the draft that may still change (for previews)."""

    accepted: list[int]
    draft: list[int]


class DecodingPolicy(Protocol):
    """Advances a sequence by one forward."""

    def step(self, sequence: DecodingSequence) -> Step:
        """Run one forward. The accepted tokens are appended to ``sequence.tokens`` by the policy."""
        ...


def resolve_policy(wanted: Policy, denoiser: Denoiser) -> Policy:
    """The policy to run: ``auto`` becomes the best lossless one that the checkpoint supports.

    Raises:
        CheckpointError: the checkpoint cannot decode that way; the message says why and what would work.
    """
    contract = denoiser.contract
    if wanted is Policy.AUTO:
        return Policy.VERIFIED if contract.has_causal_clean_path else Policy.CONFIDENCE
    if wanted in (Policy.AUTOREGRESSIVE, Policy.VERIFIED) and not contract.has_causal_clean_path:
        raise CheckpointError(
            f"policy {wanted.value} needs a checkpoint whose clean path is causal; this one has attention "
            f"{contract.attention.value} and {contract.alignment.value} logits: use confidence or fixed"
        )
    if wanted in (Policy.CONFIDENCE, Policy.FIXED):
        if denoiser.mask_id is None:
            raise CheckpointError(
                f"policy {wanted.value} denoises mask slots, and this checkpoint was not trained for them "
                "(no mask token, no drafter): use verified or autoregressive, or load a drafter"
            )
        if contract.drafter is DrafterKind.DRAFT_HEAD:
            raise CheckpointError(f"policy {wanted.value} needs slots inside the model; a draft head only drafts")
    return wanted
