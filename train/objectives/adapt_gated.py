"""Objective `adapt_gated`: a gated low-rank adapter learns to denoise slot rows; clean rows stay the base's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from diffusion_core.checkpoints.adapter import GatedAdapterMetadata, load_drafter, save_drafter
from diffusion_core.errors import ConfigError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import DrafterKind
from diffusion_core.model.transformer import Transformer
from train.adaptation.blocks import DraftBlocks
from train.adaptation.clean_pass import CleanPass
from train.adaptation.drafter_objective import DrafterObjective, drafted_vocabulary, load_base, make_loaders
from train.config import TrainConfig
from train.objective import Objective, Saver, make_generator


class GatedForward:
    """Slots through the whole base with the adapter's deltas. Row 0 is a slot too, its draft the second new token."""

    taps: tuple[int, ...] = ()
    first_row = 0
    reads_context = True
    has_anchor = False

    def __init__(self, base: Transformer) -> None:
        self._base = base

    def __call__(self, model: nn.Module, clean: CleanPass, blocks: DraftBlocks) -> torch.Tensor:
        """Normalised hidden states [B, N * S, D]."""
        assert isinstance(model, GatedAdapter)
        tokens = blocks.tokens.masked_fill(blocks.is_masked, model.mask_token_id).flatten(1)
        visible = blocks.visibility(clean.context.length)
        return self._base(  # type: ignore[no-any-return]
            tokens, blocks.positions, visible, cache=clean.context, adapter=model, first_slot=0
        )


def make_adapter(config: TrainConfig, base: Transformer) -> GatedAdapter:
    """A new adapter that changes nothing yet, or the one of ``model.drafter``.

    The mask embedding begins as the mean of the base's: an input of ordinary scale that stands for no token.
    """
    adapt = config.adapt
    adapter = GatedAdapter(base.config, rank=adapt.rank, alpha=adapt.alpha)
    if config.model.drafter:
        stored = load_drafter(Path(config.model.drafter), base.config)
        metadata = stored.metadata
        if not isinstance(metadata, GatedAdapterMetadata) or metadata.rank != adapt.rank:
            raise ConfigError(f"model.drafter {config.model.drafter} is not a gated adapter of rank {adapt.rank}")
        adapter.load_tensors(stored.tensors)
    else:
        adapter.start(make_generator(config.seed, "adapter"))
        with torch.no_grad():
            adapter.mask_embedding.copy_(base.embed_tokens.weight.detach().float().mean(0))
    return adapter.to(base.device, base.dtype)


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """The adapter, its objective, and what writes it as a drafter that the engine loads."""
    checkpoint = load_base(config, device)
    base = checkpoint.model
    loaders = make_loaders(config, checkpoint)
    adapter = make_adapter(config, base)
    token_ids = drafted_vocabulary(config, checkpoint, loaders[0])
    if len(token_ids) < base.config.vocab_size:
        adapter.keep_to(token_ids)
    objective = DrafterObjective(config, base, token_ids, GatedForward(base), loaders)

    def save(folder: Path) -> None:
        contract = dataclasses.replace(
            checkpoint.diffusion_config,
            drafter=DrafterKind.GATED_ADAPTER,
            mask_token_id=adapter.mask_token_id,
            block_size=config.model.block_size,
        )
        metadata = GatedAdapterMetadata(rank=config.adapt.rank, alpha=config.adapt.alpha)
        save_drafter(folder, metadata, adapter.named_tensors(), contract)

    return adapter, objective, save
