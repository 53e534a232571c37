"""Supervised tuning of the clean path: a low-rank adapter on every row, merged into the base when it is loaded.

The base follows edit instructions poorly (training.md section 2b). Tokens of the answer are learned from, those that
differ from the original code weigh more: most of an edited selection is a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.masks import causal
from diffusion_core.model.transformer import Transformer
from train.adaptation.clean_pass import CleanBatch, join_samples
from train.config import TrainConfig
from train.data.loader import SampleLoader
from train.data.samples import Sample
from train.objective import LossOutput


@dataclass(frozen=True)
class TuningBatch:
    """Padded sequences, and the weight of every position's target: float32 [B, T], 0 for what is not learned."""

    clean: CleanBatch
    weights: torch.Tensor


def weigh_targets(samples: Sequence[Sample], length: int, changed_weight: float) -> torch.Tensor:
    """Weight of the target of every position, float32 [B, length]: position p's target is token p + 1.

    Tokens of an edit that differ from the original weigh ``changed_weight``, copied ones 1; the prompt 0.
    """
    weights = torch.zeros(len(samples), length)
    for row, sample in zip(weights, samples, strict=True):
        answer = torch.ones(len(sample.tokens) - sample.num_prompt)
        if len(sample.original):
            answer = torch.where(sample.answer_changed, changed_weight, 1.0)
        # The answer's first token is the target of the prompt's last; of a document, the first token has no source.
        start = max(sample.num_prompt - 1, 0)
        stop = len(sample.tokens) - 1
        row[start:stop] = answer[len(answer) - (stop - start) :]
    return weights


class TuningObjective:
    """Next-token loss of answers, the adapter acting on all rows."""

    def __init__(self, config: TrainConfig, base: Transformer, train: SampleLoader, held_out: SampleLoader) -> None:
        self._config, self._base, self._train, self._held_out = config, base, train, held_out

    def draw(self, step: int, rank: int, world_size: int) -> TuningBatch:
        """Samples of that step."""
        return self._make_batch(self._train.batch(step, rank, world_size))

    def _make_batch(self, samples: list[Sample]) -> TuningBatch:
        clean = join_samples(samples)
        weights = weigh_targets(samples, clean.tokens.shape[1], self._config.adapt.changed_weight)
        return TuningBatch(clean, weights)

    def loss(self, model: nn.Module, batch: TuningBatch, step: int) -> LossOutput:
        """Weighted cross-entropy of the answers; metrics: accuracy of copied and of changed tokens."""
        assert isinstance(model, GatedAdapter)
        tokens = batch.clean.tokens.to(self._base.device)
        num_rows = tokens.shape[1]
        positions = torch.arange(num_rows, device=tokens.device).expand(len(tokens), -1)
        hidden = self._base(tokens, positions, causal(num_rows), adapter=model, first_slot=0)
        weights = batch.weights.to(tokens.device)
        is_learned = weights[:, :-1] > 0
        logits = self._base.logits(hidden[:, :-1][is_learned])
        targets, kept = tokens[:, 1:][is_learned], weights[:, :-1][is_learned]
        losses = F.cross_entropy(logits, targets, reduction="none")
        is_right = (logits.argmax(-1) == targets).float()
        is_changed = kept > 1
        metrics: dict[str, tuple[float | torch.Tensor, float | torch.Tensor]] = {
            "accuracy_changed": (is_right[is_changed].sum(), is_changed.sum()),
            "accuracy_other": (is_right[~is_changed].sum(), (~is_changed).sum()),
        }
        return LossOutput(
            loss_sum=(losses * kept).sum(),
            count=kept.sum(),
            metrics=metrics,
            batch_ids=list(batch.clean.ids),
            num_tokens=tokens.numel(),
            num_sequences=len(tokens),
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        """Loss and accuracies on held-out samples: always the same ones."""
        sums: dict[str, list[float]] = {}
        for number in range(max(1, self._config.data.held_out_sequences // self._config.data.sequences)):
            output = self.loss(model, self._make_batch(self._held_out.batch(number)), step)
            found = {"loss": (output.loss_sum, output.count)} | output.metrics
            for name, (value, count) in found.items():
                entry = sums.setdefault(name, [0.0, 0.0])
                entry[0] += float(value)
                entry[1] += float(count)
        return {name: value / count for name, (value, count) in sums.items() if count}

    def flops(self, model: nn.Module, batch: TuningBatch) -> float:
        """Forward of the whole base, backward towards the inputs, and the adapter's own three passes."""
        rows = batch.clean.tokens.numel()
        base = 2.0 * sum(p.numel() for p in self._base.layers.parameters())
        head = 2.0 * self._base.head_weight.numel()
        own = 2.0 * sum(p.numel() for p in model.parameters())
        return rows * (2 * base + 3 * own) + float((batch.weights > 0).sum()) * 2 * head
