"""The objective that both drafters share: clean pass, blocks, forward of the drafter, loss against the base.

The drafter never changes what the base computes for clean tokens, so the base is frozen and `verified` decoding is
lossless whatever is learned here (training.md section 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint
from diffusion_core.errors import ConfigError
from diffusion_core.model.adapter import adapted_layers
from diffusion_core.model.config import AttentionPattern, LogitAlignment
from diffusion_core.model.transformer import Transformer
from train.adaptation.blocks import BlockShape, DraftBlocks, draw_blocks, join_blocks
from train.adaptation.clean_pass import CleanBatch, CleanPass, RememberedPasses, join_samples, run_clean_pass
from train.adaptation.draft_loss import count_accepted, draft_loss, make_targets, row_weights
from train.adaptation.vocabulary import choose_vocabulary, invert
from train.config import TrainConfig
from train.data.loader import LoaderConfig, SampleLoader
from train.data.samples import Sample
from train.objective import LossOutput, make_generator

_VOCABULARY_BATCHES = 200


class DraftForward(Protocol):
    """How a drafter scores the rows of blocks."""

    taps: tuple[int, ...]
    first_row: int
    # Whether the slots read the base's own keys and values of the clean tokens.
    reads_context: bool
    # Whether row 0 is the newest token, revealed.
    has_anchor: bool

    def __call__(self, model: nn.Module, clean: CleanPass, blocks: DraftBlocks) -> torch.Tensor:
        """Normalised hidden states [B, N * S, D] of the blocks' rows."""
        ...


@dataclass(frozen=True)
class DraftBatch:
    """Clean sequences and the blocks over them. ``number``: of a batch that comes again, else -1."""

    clean: CleanBatch
    blocks: DraftBlocks
    number: int = -1


class DrafterObjective:
    """Trains a drafter of ``base``. ``token_ids`` int64 [V'] are the tokens that can be drafted."""

    def __init__(
        self,
        config: TrainConfig,
        base: Transformer,
        token_ids: torch.Tensor,
        forward: DraftForward,
        loaders: tuple[SampleLoader, SampleLoader],
    ) -> None:
        self._config, self._base, self._forward = config, base, forward
        self._train, self._held_out = loaders
        self._index_of = invert(token_ids, base.config.vocab_size).to(base.device)
        self._head = base.head_weight.detach()[token_ids.to(base.device)]
        adapt, noise = config.adapt, config.noise
        self._shape = BlockShape(
            num_blocks=max(1, adapt.slots // noise.block_max),
            least=noise.block_min,
            most=noise.block_max,
            full_mask_share=adapt.full_mask_share,
            noise_share=adapt.draft_noise_share,
            has_anchor=forward.has_anchor,
            known_share=adapt.known_share,
            prefix_share=adapt.prefix_share,
        )
        self._remembered = RememberedPasses(base, forward.taps, keeps_context=forward.reads_context)

    def draw(self, step: int, rank: int, world_size: int) -> DraftBatch:
        """Samples of that step with their blocks."""
        again = self._config.adapt.remember_batches
        number = step % again if again else step
        batch = self._make_batch(self._train.batch(number, rank, world_size), ("train", step))
        return replace(batch, number=number if again else -1)

    def _make_batch(self, samples: list[Sample], name: tuple[str, int]) -> DraftBatch:
        drawn = []
        for sample in samples:
            # A generator of the sample's own: the blocks do not depend on how a batch is dealt to processes.
            generator = make_generator(self._config.seed, *name, sample.id)
            lengths, first = torch.tensor([len(sample.tokens)]), torch.tensor([sample.num_prompt])
            drawn.append(draw_blocks(sample.tokens.unsqueeze(0), lengths, first, self._shape, generator))
        return DraftBatch(join_samples(samples), join_blocks(drawn))

    def _score(self, model: nn.Module, batch: DraftBatch) -> LossOutput:
        device, adapt = self._base.device, self._config.adapt
        tokens, blocks = batch.clean.tokens.to(device), batch.blocks.to(device)
        if batch.number < 0:
            clean = run_clean_pass(self._base, tokens, self._forward.taps)
        else:
            clean = self._remembered.get(batch.number, tokens)
        with torch.no_grad():
            base_logits = F.linear(clean.hidden, self._head).float()
            targets = make_targets(blocks, tokens, base_logits, self._index_of)
        logits = F.linear(self._forward(model, clean, blocks), self._head).float()
        weights = row_weights(blocks, adapt.offset_decay)
        total, weight = draft_loss(logits, targets, weights, adapt.distill_weight)
        metrics = count_accepted(logits, blocks, targets, self._forward.first_row)
        return LossOutput(
            loss_sum=total,
            count=weight,
            metrics=dict(metrics),
            batch_ids=list(batch.clean.ids),
            num_tokens=tokens.numel() + blocks.tokens.numel(),
            num_sequences=len(tokens),
        )

    def loss(self, model: nn.Module, batch: DraftBatch, step: int) -> LossOutput:
        """Loss of the blocks; metrics are agreement with the base by offset and tokens per forward."""
        return self._score(model, batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        """The same figures on held-out samples: always the same samples and blocks."""
        sums: dict[str, list[float]] = {}
        for number in range(max(1, self._config.data.held_out_sequences // self._config.data.sequences)):
            batch = self._make_batch(self._held_out.batch(number), ("held_out", number))
            if self._config.adapt.remember_batches:
                batch = replace(batch, number=self._config.adapt.remember_batches + number)
            output = self._score(model, batch)
            found = {"loss": (output.loss_sum, output.count)} | output.metrics
            for name, (value, count) in found.items():
                entry = sums.setdefault(name, [0.0, 0.0])
                entry[0] += float(value)
                entry[1] += float(count)
        return {name: value / count for name, (value, count) in sums.items() if count}

    def flops(self, model: nn.Module, batch: DraftBatch) -> float:
        """Clean pass, forward and backward of the rows, both with the cut head; attention is left out as small."""
        per_row = 2.0 * sum(rows * columns for rows, columns in adapted_layers(self._base.config).values())
        head = 2.0 * self._head.numel()
        clean_rows, rows = batch.clean.tokens.numel(), batch.blocks.tokens.numel()
        own = 2.0 * sum(p.numel() for p in model.parameters())
        drafter = 3 * own if self._forward.taps else 2 * per_row + 3 * own
        return clean_rows * (per_row + head) + rows * (drafter + 2 * head)


def load_base(config: TrainConfig, device: torch.device, *, tuned: bool = True) -> Checkpoint:
    """The frozen base of an adaptation; with ``tuned`` the tuning ``model.tuning`` is merged into it.

    Raises:
        ConfigError: none is named, or it is not autoregressive.
        CheckpointError: it cannot be loaded.
    """
    if not config.model.base:
        raise ConfigError("model.base is empty: adapting needs a base, for example --set model.base=qwen2.5-coder-0.5b")
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.model.dtype]
    tuning = Path(config.model.tuning) if tuned and config.model.tuning else None
    base = load_checkpoint(config.model.base, dtype=dtype, device=device, tuning=tuning)
    contract = base.diffusion_config
    if contract.attention is not AttentionPattern.CAUSAL_CONTEXT or contract.alignment is not LogitAlignment.SHIFTED:
        raise ConfigError(f"model.base {config.model.base} is not autoregressive: adapting starts from a causal model")
    return base


def make_loaders(config: TrainConfig, base: Checkpoint) -> tuple[SampleLoader, SampleLoader]:
    """Loaders of both splits, with the base's own tokenizer and prompt format."""
    data = config.data
    settings = LoaderConfig(
        sequences=data.sequences,
        max_tokens=data.max_tokens,
        mixture=data.mixture,
        layouts=data.layouts,
        seed=config.seed,
    )
    return tuple(  # type: ignore[return-value]
        SampleLoader(data.corpus, base.tokenizer, base.diffusion_config, settings, split=split)
        for split in ("train", "held_out")
    )


def drafted_vocabulary(config: TrainConfig, base: Checkpoint, loader: SampleLoader) -> torch.Tensor:
    """Ids that can be drafted: the most frequent of the training split, and the stop tokens; 0 means all."""
    size = config.adapt.vocabulary
    vocab_size = base.model_config.vocab_size
    if not size:
        return torch.arange(vocab_size)

    def sequences() -> Iterator[torch.Tensor]:
        for step in range(_VOCABULARY_BATCHES):
            for sample in loader.batch(step):
                yield sample.tokens

    return choose_vocabulary(sequences(), size, vocab_size, base.diffusion_config.stop_token_ids)
