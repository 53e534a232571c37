"""What the mask stage and the edit stage share: the objective of eq. 5 and eq. 6 over blocks of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from diffusion_core.diffusion.losses import ban_mask_token, token_losses
from diffusion_core.model.config import LogitAlignment
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser
from train.config import TrainConfig
from train.data.samples import Sample
from train.objective import LossOutput, Saver
from train.objectives.block_rows import BlockRows
from train.objectives.corruption import NoisyAnswers, corrupt_samples
from train.objectives.evaluation import evaluate_answers
from train.objectives.sources import SampleSource, make_sources
from train.objectives.starting_point import StartingPoint, make_starting_point

# Weight of the next-token loss of the clean rows; see Differs of DenoisingObjective.
CLEAN_WEIGHT = 0.5


@dataclass(frozen=True)
class Terms:
    """The parts of the loss, each a sum over tokens with gradient, and the number of tokens counted."""

    mask_term: torch.Tensor
    other_term: torch.Tensor
    clean_term: torch.Tensor
    count: int
    metrics: dict[str, tuple[float | torch.Tensor, float | torch.Tensor]]


def clean_path_loss(
    model: Transformer, rows: BlockRows, hidden: torch.Tensor, alignment: LogitAlignment, mask_id: int
) -> torch.Tensor:
    """Next-token loss of the answers on the clean rows ``hidden`` [B, C, D], summed; 0 unless logits are shifted."""
    if alignment is not LogitAlignment.SHIFTED:
        return hidden.new_zeros(())
    x_0 = rows.batch.answers
    is_answer = torch.arange(x_0.shape[1], device=x_0.device) < rows.batch.num_answer.unsqueeze(-1)
    return (token_losses(rows.clean_logits(model, hidden), x_0, mask_id) * is_answer).sum()


class DenoisingObjective:
    """Eq. 5 (the mask stage) or eq. 6 (``with_edits``: the edit stage) with blocks, as the decoder serves them.

    One forward holds the clean sequences and two noisy copies of every answer: masked (second term), and clean
    (eq. 5: the reconstruction term) or edited (eq. 6: the denoising term that replaces it).

    Differs:
        Blocks: a block is denoised given the clean tokens before it (section 3.4), one time per block. For shifted
        logits the next-token loss of the clean rows is added: a block's first token is spoken of by the clean row
        before it, and the policies ``verified`` and ``autoregressive`` rest on those rows. Losses are per token, not
        per sequence, so that long answers count for what they are.
    """

    def __init__(
        self,
        config: TrainConfig,
        start: StartingPoint,
        sources: tuple[SampleSource, SampleSource],
        *,
        with_edits: bool,
    ) -> None:
        self.config, self.start = config, start
        self.train, self.held_out = sources
        self._with_edits = with_edits
        self.pad_id = start.contract.stop_token_ids[0] if start.contract.stop_token_ids else 0
        stop = [t for t in map(start.tokenizer.token_to_id, ("<|endoftext|>",)) if t in start.contract.stop_token_ids]
        if stop:
            self.pad_id = stop[0]

    def draw(self, step: int, rank: int, world_size: int) -> NoisyAnswers:
        """Noisy answers of a step: a pure function of (seed, step, rank)."""
        samples = self.train.batch(step, rank, world_size)
        numbers = range(rank, self.config.data.sequences, world_size)
        return self.corrupt(samples, ("train", step), list(numbers))

    def corrupt(self, samples: Sequence[Sample], name: tuple[str, int], numbers: Sequence[int]) -> NoisyAnswers:
        """Noise for ``samples``, which are number ``numbers`` of their batch."""
        return corrupt_samples(
            samples,
            self.config.noise,
            mask_id=self.start.mask_id,
            pad_id=self.pad_id,
            key=(self.config.seed, *name),
            numbers=numbers,
            num_global=max(self.config.data.sequences, max(numbers, default=0) + 1),
        )

    def terms(self, model: Transformer, noisy: NoisyAnswers) -> Terms:
        """The parts of eq. 5 or 6 for one batch."""
        alignment, mask_id = self.start.contract.alignment, self.start.mask_id
        other = noisy.edited if self._with_edits else noisy.batch.answers
        rows = BlockRows(noisy.batch, noisy.partition, (noisy.masked, other))
        hidden, (masked_logits, other_logits) = rows.evaluate(model, alignment)
        x_0, counted = noisy.batch.answers, rows.is_counted
        is_masked = noisy.is_masked & counted
        masked_losses = token_losses(masked_logits, x_0, mask_id)
        other_losses = token_losses(other_logits, x_0, mask_id)
        with torch.no_grad():
            best = ban_mask_token(masked_logits, mask_id).argmax(-1)
            metrics: dict[str, tuple[float | torch.Tensor, float | torch.Tensor]] = {
                "mask_loss": ((masked_losses * is_masked).sum(), is_masked.sum()),
                "accuracy": (((best == x_0) & is_masked).sum(), is_masked.sum()),
            }
            if self._with_edits:
                changed = noisy.changed & counted
                repaired = (ban_mask_token(other_logits, mask_id).argmax(-1) == x_0) & changed
                metrics["repaired"] = (repaired.sum(), changed.sum())
        return Terms(
            mask_term=(masked_losses * is_masked * noisy.weight).sum(),
            other_term=(other_losses * counted).sum(),
            clean_term=clean_path_loss(model, rows, hidden, alignment, mask_id),
            count=int(counted.sum()),
            metrics=metrics,
        )

    def loss(self, model: nn.Module, batch: NoisyAnswers, step: int) -> LossOutput:
        """Eq. 5 or 6, summed over tokens."""
        assert isinstance(model, Transformer)
        noisy = batch.to(model.device)
        terms = self.terms(model, noisy)
        total = terms.mask_term + self.config.noise.edit_weight * terms.other_term + CLEAN_WEIGHT * terms.clean_term
        rows = noisy.batch.clean.shape[1] + 2 * noisy.batch.answers.shape[1]
        return LossOutput(
            loss_sum=total,
            count=terms.count,
            metrics=terms.metrics,
            batch_ids=noisy.ids,
            num_tokens=len(noisy.ids) * rows,
            num_sequences=len(noisy.ids),
        )

    @torch.no_grad()
    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        """Loss, and answers decoded with the ``confidence`` policy, on held-out samples (always the same ones)."""
        assert isinstance(model, Transformer)
        sums: dict[str, list[float]] = {}
        samples: list[Sample] = []
        data = self.config.data
        for number in range(-(-data.held_out_sequences // data.sequences)):
            drawn = self.held_out.batch(number)[: data.held_out_sequences - len(samples)]
            samples += drawn
            noisy = self.corrupt(drawn, ("held_out", number), range(len(drawn))).to(model.device)
            for name, (value, count) in self.terms(model, noisy).metrics.items():
                entry = sums.setdefault(name, [0.0, 0.0])
                entry[0] += float(value)
                entry[1] += float(count)
        figures = {name: value / count for name, (value, count) in sums.items() if count}
        return figures | evaluate_answers(self.denoiser(model), self.start.tokenizer, samples, self.pad_id)

    def denoiser(self, model: nn.Module) -> Denoiser:
        """The model in training as the decoder sees it."""
        assert isinstance(model, Transformer)
        return Denoiser(model, self.start.contract)


def build_denoising(
    config: TrainConfig, device: torch.device, *, with_edits: bool
) -> tuple[StartingPoint, DenoisingObjective, Saver]:
    """Model, objective and saver of one of the two stages of section 3.1."""
    start = make_starting_point(config, device)
    sources = make_sources(config, start.tokenizer, start.contract)
    return start, DenoisingObjective(config, start, sources, with_edits=with_edits), start.saver()
