"""Whether a model that was just loaded answers at all: asked before it takes the place of one that does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from diffusion_core.errors import CheckpointError
from diffusion_core.model.masks import causal

if TYPE_CHECKING:
    from diffusion_core.engine.loaded_model import LoadedModel

_PROMPT = "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n"
_NUM_ANSWERED = 8
# Logits of a trained model are within some dozens; beyond this something has come apart.
_MAX_LOGIT = 1e4


@torch.inference_mode()
def check_model(model: LoadedModel) -> None:
    """Compute a short prompt and a few tokens after it, greedily.

    Raises:
        CheckpointError: a weight or a score is not finite, or scores say the same of every token.
    """
    for name, weight in model.denoiser.model.named_parameters():
        # Packed weights are opaque; what is wrong with them shows in the scores, to which each contributes.
        if weight.layout is torch.strided and weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{model.name}: the tensor {name} holds values that are not finite")
    ids = model.encoder.encode_text(_PROMPT)
    for _ in range(_NUM_ANSWERED):
        scores = _score(model, ids)
        if not bool(torch.isfinite(scores).all()):
            raise CheckpointError(f"{model.name}: its scores are not finite: a tensor of it is damaged")
        if scores.abs().max().item() > _MAX_LOGIT or (scores.max(dim=-1).values == scores.min(dim=-1).values).any():
            raise CheckpointError(f"{model.name}: its scores make no sense: these are no trained weights")
        ids.append(int(scores[-1].argmax()))


def _score(model: LoadedModel, ids: list[int]) -> torch.Tensor:
    """Scores [T, V] of every position, float32."""
    transformer = model.denoiser.model
    tokens = torch.tensor([ids], device=transformer.device)
    positions = torch.arange(len(ids), device=transformer.device).unsqueeze(0)
    return model.denoiser.logits(transformer(tokens, positions, causal(len(ids)))[0])
