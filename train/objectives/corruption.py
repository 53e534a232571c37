"""Noisy answers for a training step: partition, times, masks and edits, sample by sample (paper, section 3.1).

Every sample has a generator of its own and its noise does not depend on the samples beside it, so that the number of
processes does not change what is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusion_core.diffusion.edit_noise import corrupt_edit, edit_budget
from diffusion_core.diffusion.mask_noise import corrupt_mask
from diffusion_core.diffusion.schedule import (
    BlockClippedSchedule,
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    draw_times,
)
from train.config import NoiseConfig
from train.data.samples import Sample
from train.objective import make_generator
from train.objectives.block_rows import AnswerBatch, Partition, draw_partition, pad_answers

# Later blocks of an answer take the first one's time plus multiples of this (mod 1): evenly spread, like the first.
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class NoisyAnswers:
    """Clean answers, their partition, and two noisy copies int64 [B, A].

    ``is_masked`` and ``weight`` [B, A] (gamma' / gamma of the column's block) belong to ``masked``; ``changed``
    bool [B, A] marks where ``edited`` differs from x_0. ``ids`` name the samples.
    """

    batch: AnswerBatch
    partition: Partition
    masked: torch.Tensor
    is_masked: torch.Tensor
    weight: torch.Tensor
    edited: torch.Tensor
    ids: list[str]

    @property
    def changed(self) -> torch.Tensor:
        """Where the edited copy differs from x_0."""
        return self.edited != self.batch.answers

    def to(self, device: torch.device) -> NoisyAnswers:
        """The same on another device."""
        return NoisyAnswers(
            self.batch.to(device),
            self.partition.to(device),
            self.masked.to(device),
            self.is_masked.to(device),
            self.weight.to(device),
            self.edited.to(device),
            self.ids,
        )


def make_schedule(noise: NoiseConfig, sizes: torch.Tensor) -> NoiseSchedule:
    """The schedule that the configuration names; clipped by each block's own size, int64 [..., 1], if it says so."""
    inner: NoiseSchedule = LinearSchedule() if noise.schedule == "linear" else CosineSchedule()
    return BlockClippedSchedule(sizes, inner) if noise.clip_block else inner


def split_sample(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt and answer of a sample; a document's first token is its prompt, from which the second follows."""
    num_prompt = max(1, sample.num_prompt)
    return sample.tokens[:num_prompt], sample.tokens[num_prompt:]


def num_columns_for(samples: Sequence[Sample], most: int) -> int:
    """Answer columns that hold every answer and the whole of its last block, wherever that begins."""
    return max(len(split_sample(sample)[1]) for sample in samples) + most - 1


def batch_samples(samples: Sequence[Sample], pad_id: int, most: int) -> AnswerBatch:
    """Samples as padded prompts and answers."""
    parts = [split_sample(sample) for sample in samples]
    return pad_answers(
        [prompt for prompt, _ in parts],
        [answer for _, answer in parts],
        pad_id,
        num_columns=num_columns_for(samples, most) if samples else most,
        is_finished=[sample.is_finished for sample in samples],
    )


def corrupt_samples(
    samples: Sequence[Sample],
    noise: NoiseConfig,
    *,
    mask_id: int,
    pad_id: int,
    key: tuple[int | str, ...],
    numbers: Sequence[int],
    num_global: int,
) -> NoisyAnswers:
    """Corrupt ``samples`` for one step; everything lies on the CPU.

    Args:
        samples: of this rank.
        noise: schedule, block sizes and rates.
        mask_id: the mask token.
        pad_id: what follows an answer: the stop token.
        key: seed and step, for the generators.
        numbers: each sample's place in the batch of all ranks.
        num_global: size of that batch; times are stratified over it.
    """
    batch = batch_samples(samples, pad_id, noise.block_max)
    num_columns = batch.answers.shape[1]
    base_times = draw_times(num_global, make_generator(*key, "times"), low=0.0)
    edit_times = draw_times(num_global, make_generator(*key, "edit_times"), low=0.0)
    rows = [
        _corrupt_one(
            batch.select(torch.tensor([i])),
            noise,
            mask_id,
            (float(base_times[number]), float(edit_times[number])),
            make_generator(*key, "noise", number),
        )
        for i, number in enumerate(numbers)
    ]
    partitions = [row.partition for row in rows]
    num_blocks = max(p.starts.shape[1] for p in partitions)
    partition = Partition(
        torch.cat([_widen(p.starts, num_blocks, num_columns) for p in partitions]),
        torch.cat([_widen(p.sizes, num_blocks, 0) for p in partitions]),
        torch.cat([p.block_of for p in partitions]),
    )
    return NoisyAnswers(
        batch,
        partition,
        torch.cat([row.masked for row in rows]),
        torch.cat([row.is_masked for row in rows]),
        torch.cat([row.weight for row in rows]),
        torch.cat([row.edited for row in rows]),
        [sample.id for sample in samples],
    )


def _widen(values: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    return F.pad(values, (0, width - values.shape[1]), value=fill)


def _corrupt_one(
    one: AnswerBatch, noise: NoiseConfig, mask_id: int, times: tuple[float, float], generator: torch.Generator
) -> NoisyAnswers:
    """One answer, [1, A], with its noise.

    The random numbers that are used depend on the answer's own length only: the columns are cut to it first.
    """
    num_answer, most = int(one.num_answer), noise.block_max
    num_own = num_answer + most - 1
    x_0 = one.answers[:, :num_own]
    own = draw_partition(1, num_own, noise.block_min, most, generator)
    blocks, is_slot = own.to_blocks(x_0)
    is_real = is_slot & own.to_blocks(one.is_known[:, :num_own])[0]
    schedule = make_schedule(noise, is_real.sum(-1, keepdim=True).clamp_min(1))
    t = torch.frac(times[0] + _GOLDEN * torch.arange(len(blocks))).unsqueeze(-1)
    t = noise.min_time + (1 - noise.min_time) * t
    drawn = corrupt_mask(
        blocks, schedule.gamma(t), mask_id, generator, may_mask=is_real, min_masked=int(noise.clip_block)
    )
    weight = schedule.weight(t).clamp_max(noise.weight_cap).expand(blocks.shape)
    budget = edit_budget(num_answer, torch.tensor([times[1]]), max_alpha=noise.edit_rate)
    replacements = own_tokens(one.clean[:, : int(one.num_prompt) + num_answer], mask_id)
    edited = corrupt_edit(x_0, budget, replacements, one.pad_id, generator).x_t if len(replacements) > 1 else x_0
    rest = one.answers.shape[1] - num_own
    # Columns that only longer answers of the batch need: a block of their own, never counted.
    partition = Partition(
        F.pad(own.starts, (0, 1), value=num_own),
        F.pad(own.sizes, (0, 1), value=rest),
        F.pad(own.block_of, (0, rest), value=own.starts.shape[1]),
    )

    def fill(columns: torch.Tensor, value: float) -> torch.Tensor:
        return F.pad(columns, (0, rest), value=value)

    return NoisyAnswers(
        one,
        partition,
        fill(own.to_columns(drawn.x_t), one.pad_id),
        fill(own.to_columns(drawn.is_masked), False),
        fill(own.to_columns(weight), 0.0),
        fill(edited, one.pad_id),
        [],
    )


def own_tokens(tokens: torch.Tensor, mask_id: int) -> torch.Tensor:
    """Different tokens of a sequence, without the mask token: likelier mistakes than any of the vocabulary."""
    distinct = torch.unique(tokens)
    return torch.masked_select(distinct, distinct != mask_id)
