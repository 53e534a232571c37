"""Objective `adapt_draft_head`: a small head over the base's hidden states learns to fill blocks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from diffusion_core.checkpoints.adapter import DraftHeadMetadata, load_drafter, save_drafter
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import DrafterKind
from diffusion_core.model.draft_head import DraftHead
from diffusion_core.model.layers import TransformerLayer
from diffusion_core.model.packed import can_pack
from diffusion_core.model.transformer import Transformer
from train.adaptation.blocks import DraftBlocks
from train.adaptation.clean_pass import CleanPass
from train.adaptation.drafter_objective import DrafterObjective, drafted_vocabulary, load_base, make_loaders
from train.config import TrainConfig
from train.objective import Objective, Saver, make_generator

# What a new head writes, as shares of the base's own weights: of its layers' outputs, and of the final norm. At the
# base's full scale the logits of a head that knows nothing are many times too sure (EXPERIMENTS.md, 2026-11-25).
_START_SHARE = 0.1
_START_SCALE = 0.2


class HeadForward:
    """Blocks through the head. Row 0 is the anchor, the newest token; its draft is the token after it."""

    first_row = 0
    reads_context = False
    has_anchor = True

    def __init__(self, base: Transformer, taps: tuple[int, ...]) -> None:
        self._base, self.taps = base, taps

    def __call__(self, model: nn.Module, clean: CleanPass, blocks: DraftBlocks) -> torch.Tensor:
        """Normalised hidden states [B, N * S, D]."""
        assert isinstance(model, DraftHead)
        size, num_clean = blocks.tokens.shape[2], clean.num_rows
        features = model.make_features(clean.tapped)
        positions = torch.arange(num_clean, device=features.device).expand(len(features), -1)
        context = model.project(features, positions)
        embedded = self._base.embed_tokens(blocks.tokens.flatten(1))
        embedded = torch.where(
            blocks.is_masked.flatten(1).unsqueeze(-1), model.mask_embedding.to(embedded.dtype), embedded
        )
        # Every row of a block carries the feature of the last clean token before the block.
        before = (blocks.starts - 1).clamp_min(0).repeat_interleave(size, dim=1)
        carried = features.gather(1, before.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        return model(  # type: ignore[no-any-return]
            embedded, carried, blocks.positions, blocks.visibility(num_clean), context
        )


def default_taps(num_layers: int) -> tuple[int, ...]:
    """A third, two thirds and the end of the depth."""
    return (num_layers // 3, 2 * num_layers // 3, num_layers)


@torch.no_grad()
def make_head(config: TrainConfig, base: Transformer, token_ids: torch.Tensor) -> DraftHead:
    """A new head, its layers copies of the base's last ones, or the one of ``model.drafter``."""
    adapt = config.adapt
    taps = adapt.taps or default_taps(base.config.num_layers)
    head = DraftHead(
        base.config,
        num_layers=adapt.head_layers,
        tap_layers=taps,
        vocabulary_size=len(token_ids),
        num_steps=adapt.head_steps,
    )
    if config.model.drafter:
        stored = load_drafter(Path(config.model.drafter), base.config)
        if not isinstance(stored.metadata, DraftHeadMetadata):
            raise ConfigError(f"model.drafter {config.model.drafter} is not a draft head")
        head.load_tensors(stored.tensors)
    else:
        head.token_ids.copy_(token_ids)
        generator = make_generator(config.seed, "draft head")
        for linear in (head.fuse, head.carry):
            scale = linear.in_features**-0.5
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) * scale)
        for mine, theirs in zip(head.layers, list(base.layers)[-adapt.head_layers :], strict=True):
            assert isinstance(mine, TransformerLayer)
            mine.load_state_dict(theirs.state_dict())
            # The base's last layers write many times more than the head's stream holds, which would drown it.
            for writer in (mine.attention.o_proj, mine.mlp.down_proj):
                writer.weight.mul_(_START_SHARE)
        head.norm.load_state_dict(base.norm.state_dict())
        head.norm.weight.mul_(_START_SCALE)
        head.mask_embedding.copy_(base.embed_tokens.weight.detach().float().mean(0))
    return head.to(base.device, base.dtype)


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """The head, its objective, and what writes it as a drafter that the engine loads."""
    checkpoint = load_base(config, device)
    base = checkpoint.model
    loaders = make_loaders(config, checkpoint)
    token_ids = drafted_vocabulary(config, checkpoint, loaders[0])
    head = make_head(config, base, token_ids)
    if can_pack(device, base.dtype):
        base.pack()  # no gradient passes through the base: its clean pass may be the fast one
    forward = HeadForward(base, head.tap_layers)
    objective = DrafterObjective(config, base, head.token_ids, forward, loaders)

    def save(folder: Path) -> None:
        contract = dataclasses.replace(
            checkpoint.diffusion_config, drafter=DrafterKind.DRAFT_HEAD, block_size=config.model.block_size
        )
        metadata = DraftHeadMetadata(
            num_layers=len(head.layers),
            tap_layers=head.tap_layers,
            vocabulary_size=len(head.token_ids),
            num_steps=head.num_steps,
        )
        # The trainer's own state keeps full precision; what is served takes half the bytes.
        tensors = {
            name: tensor.bfloat16() if tensor.is_floating_point() else tensor
            for name, tensor in head.named_tensors().items()
        }
        save_drafter(folder, metadata, tensors, contract)

    return head, objective, save
