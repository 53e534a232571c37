"""What a policy is: one model call at a time, so that a cancel is never more than one forward away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind
from diffusion_core.requests import Policy
from diffusion_core.sampling.asking import Asking
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import DecodingSequence

# Their text is that of one token a forward, whatever was drafted.
LOSSLESS = frozenset({Policy.AUTOREGRESSIVE, Policy.VERIFIED})


@dataclass(slots=True)
class Step:
    """Outcome of one forward: tokens that are now committed, and the draft that may still change (for previews).

    ``is_final``: nothing can follow, since the answer has filled its place.

    For those who watch: ``judged`` is the draft (of ``source``) that this forward verified, and ``slots`` the active
    block where it has places that are masked still (None).
    """

    accepted: list[int]
    draft: list[int]
    is_final: bool = False
    judged: Sequence[int] = ()
    source: str = ""
    slots: Sequence[int | None] = ()


def make_open_step(block: Sequence[int], mask_id: int | None) -> Step:
    """The outcome of a forward that commits nothing for good yet: ``block`` with its masks."""
    return Step([], [t for t in block if t != mask_id], slots=[None if t == mask_id else t for t in block])


class DecodingPolicy(Protocol):
    """Advances a sequence by one forward."""

    def step(self, sequence: DecodingSequence) -> Asking[Step]:
        """Run one forward, by asking for it. The accepted tokens are appended to ``sequence.tokens`` by the policy."""
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
            f"{contract.attention.value} and {contract.alignment.value} logits: use {_names_of_parallel(contract)}"
        )
    if wanted is Policy.P2 and contract.attention is not AttentionPattern.BIDIRECTIONAL:
        raise CheckpointError(
            f"policy p2 needs a checkpoint that is denoised as a whole; this one has attention "
            f"{contract.attention.value}: use {'verified' if contract.has_causal_clean_path else 'confidence'}"
        )
    if wanted in (Policy.CONFIDENCE, Policy.FIXED, Policy.P2):
        if denoiser.mask_id is None:
            raise CheckpointError(
                f"policy {wanted.value} denoises mask slots, and this checkpoint was not trained for them "
                "(no mask token, no drafter): use verified or autoregressive, or load a drafter"
            )
        if contract.drafter is DrafterKind.DRAFT_HEAD:
            raise CheckpointError(f"policy {wanted.value} needs slots inside the model; a draft head only drafts")
    return wanted


def _names_of_parallel(contract: DiffusionConfig) -> str:
    """The policies of a checkpoint that has no causal clean path, for messages."""
    return "confidence, fixed or p2" if contract.attention is AttentionPattern.BIDIRECTIONAL else "confidence or fixed"
