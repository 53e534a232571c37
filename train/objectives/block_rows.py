"""Rows of one training forward: clean sequences, then noisy copies of their answers cut into blocks.

The block decoder shows a slot the clean tokens before its block and the slots of its own block. One training forward
evaluates all blocks of all answers at once, each under exactly that view, and several noisy copies side by side
(groups: one masked, one edited). Shapes: B samples, C clean rows, A answer columns, N blocks, M slots of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffusion_core.errors import ConfigError
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, LogitAlignment
from diffusion_core.model.transformer import Transformer


@dataclass(frozen=True)
class AnswerBatch:
    """Prompts with their clean answers, padded.

    ``clean`` int64 [B, C] holds prompt and answer; ``num_prompt`` [B]; ``answers`` int64 [B, A] is x_0, the answer
    followed by ``pad_id``; ``num_answer`` [B] its length with the stop token. ``is_finished`` bool [B]: it ends with
    a stop token (which need not be ``pad_id``), so that the padding is what serving has to fill in behind it. An
    answer that breaks off has no such columns: padding there would teach to stop in the middle of code.
    """

    clean: torch.Tensor
    num_prompt: torch.Tensor
    answers: torch.Tensor
    num_answer: torch.Tensor
    is_finished: torch.Tensor
    pad_id: int

    @property
    def is_known(self) -> torch.Tensor:
        """Columns whose x_0 is known: bool [B, A]; all but the padding behind answers that break off."""
        columns = torch.arange(self.answers.shape[1], device=self.device)
        return self.is_finished.unsqueeze(-1) | (columns < self.num_answer.unsqueeze(-1))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.clean.device

    def to(self, device: torch.device) -> AnswerBatch:
        """The same on another device."""
        return AnswerBatch(
            self.clean.to(device),
            self.num_prompt.to(device),
            self.answers.to(device),
            self.num_answer.to(device),
            self.is_finished.to(device),
            self.pad_id,
        )

    def select(self, index: torch.Tensor) -> AnswerBatch:
        """The samples at ``index`` int64 [n], in that order; a sample may come more than once."""
        return AnswerBatch(
            self.clean[index],
            self.num_prompt[index],
            self.answers[index],
            self.num_answer[index],
            self.is_finished[index],
            self.pad_id,
        )


def pad_answers(
    prompts: Sequence[torch.Tensor],
    answers: Sequence[torch.Tensor],
    pad_id: int,
    *,
    num_columns: int,
    is_finished: Sequence[bool] | None = None,
) -> AnswerBatch:
    """Batch ``prompts`` and ``answers`` (int64, one dimension each); the answers take ``num_columns`` columns.

    ``is_finished``: which answers end with a stop token; None for all.

    Raises:
        ConfigError: there is no sample, a prompt is empty, or an answer is longer than the columns.
    """
    if not prompts:
        raise ConfigError("a batch without samples: lower data.mixture's zeros or add examples to the corpus")
    if min(len(p) for p in prompts) == 0:
        raise ConfigError("a sample without a prompt: the first token has nothing to be predicted from")
    device = prompts[0].device
    num_prompt = torch.tensor([len(p) for p in prompts], device=device)
    num_answer = torch.tensor([len(a) for a in answers], device=device)
    longest = int(num_answer.max())
    if longest > num_columns:
        raise ConfigError(f"an answer has {longest} tokens, more than the {num_columns} columns of its blocks")
    clean = torch.full((len(prompts), int((num_prompt + num_answer).max())), pad_id, device=device)
    columns = torch.full((len(prompts), num_columns), pad_id, device=device)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        clean[i, : len(prompt)] = prompt
        clean[i, len(prompt) : len(prompt) + len(answer)] = answer
        columns[i, : len(answer)] = answer
    finished = torch.tensor([True] * len(answers) if is_finished is None else list(is_finished), device=device)
    return AnswerBatch(clean, num_prompt, columns, num_answer, finished, pad_id)


@dataclass(frozen=True)
class Partition:
    """How the answer columns are cut: ``starts`` and ``sizes`` int64 [B, N], ``block_of`` int64 [B, A]."""

    starts: torch.Tensor
    sizes: torch.Tensor
    block_of: torch.Tensor

    @property
    def start_of(self) -> torch.Tensor:
        """First column of each column's block: int64 [B, A]."""
        return self.starts.gather(1, self.block_of)

    def to(self, device: torch.device) -> Partition:
        """The same on another device."""
        return Partition(self.starts.to(device), self.sizes.to(device), self.block_of.to(device))

    def to_blocks(self, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``columns`` [B, A] as blocks [B * N, M], and which slots are real: bool [B * N, M]."""
        offsets = torch.arange(int(self.sizes.max()), device=columns.device)
        is_real = offsets < self.sizes.unsqueeze(-1)
        at = (self.starts.unsqueeze(-1) + offsets).clamp_max(columns.shape[1] - 1)
        return columns.gather(1, at.flatten(1)).view(-1, len(offsets)), is_real.view(-1, len(offsets))

    def to_columns(self, blocks: torch.Tensor) -> torch.Tensor:
        """Blocks [B * N, M] back as columns [B, A]."""
        offset = torch.arange(self.block_of.shape[1], device=blocks.device) - self.start_of
        return blocks.reshape(len(self.starts), -1).gather(1, self.block_of * blocks.shape[-1] + offset)


def draw_partition(num_samples: int, num_columns: int, least: int, most: int, generator: torch.Generator) -> Partition:
    """Cut each sample's columns into blocks of ``least`` to ``most`` slots, drawn block by block (on the CPU).

    The paper avoids block-specific training to keep any partition possible at inference (section 3.4).
    """
    num_blocks = -(-num_columns // least)
    sizes = torch.randint(least, most + 1, (num_samples, num_blocks), generator=generator)
    ends = sizes.cumsum(-1).clamp_max(num_columns)
    starts = torch.cat((torch.zeros(num_samples, 1, dtype=torch.long), ends[:, :-1]), dim=-1)
    columns = torch.arange(num_columns).expand(num_samples, -1).contiguous()
    return Partition(starts, ends - starts, torch.searchsorted(ends, columns, right=True))


def check_contract(contract: DiffusionConfig) -> int:
    """The mask token of a checkpoint that these rows fit.

    Raises:
        ConfigError: another attention pattern, or no mask token.
    """
    if contract.attention is not AttentionPattern.CAUSAL_CONTEXT:
        raise ConfigError(
            f"this objective trains attention causal_context; the checkpoint has {contract.attention.value}"
        )
    if contract.mask_token_id is None:
        raise ConfigError("the checkpoint has no mask_token_id: give its diffusion configuration one")
    return contract.mask_token_id


@dataclass(frozen=True)
class BlockRows:
    """One forward over ``batch`` and its noisy ``groups``, each int64 [B, A], all cut by ``partition``."""

    batch: AnswerBatch
    partition: Partition
    groups: tuple[torch.Tensor, ...]

    @property
    def is_counted(self) -> torch.Tensor:
        """Columns whose block begins inside the answer: bool [B, A]. They carry loss, the padding behind the stop too.

        In serving, the slots behind the stop token have to be filled for the block to end. Behind an answer that breaks
        off there is nothing to learn.
        """
        return (self.partition.start_of < self.batch.num_answer.unsqueeze(-1)) & self.batch.is_known

    def tokens(self) -> torch.Tensor:
        """All rows: int64 [B, C + G * A]."""
        return torch.cat((self.batch.clean, *self.groups), dim=1)

    def positions(self) -> torch.Tensor:
        """Absolute positions of all rows: int64 [B, C + G * A]."""
        num_samples, num_columns = self.batch.answers.shape
        clean = torch.arange(self.batch.clean.shape[1], device=self.batch.device).expand(num_samples, -1)
        slots = self.batch.num_prompt.unsqueeze(-1) + torch.arange(num_columns, device=self.batch.device)
        return torch.cat((clean, *([slots] * len(self.groups))), dim=1)

    def visible(self) -> torch.Tensor:
        """What each row sees: bool [B, T, T], T = C + G * A."""
        num_samples, num_clean = self.batch.clean.shape
        num_columns, num_groups = self.batch.answers.shape[1], len(self.groups)
        total = num_clean + num_groups * num_columns
        seen = torch.zeros(num_samples, total, total, dtype=torch.bool, device=self.batch.device)
        keys = torch.arange(num_clean, device=self.batch.device)
        seen[:, :num_clean, :num_clean] = keys[:, None] >= keys[None, :]
        context = self.batch.num_prompt.unsqueeze(-1) + self.partition.start_of
        # Slots behind the end of a short answer have no clean context of their own; they are never counted.
        sees_clean = keys < context.unsqueeze(-1)
        same_block = self.partition.block_of.unsqueeze(-1) == self.partition.block_of.unsqueeze(-2)
        # Padding that stands for nothing is hidden, but from itself: softmax over no key at all is not a number.
        is_itself = torch.eye(num_columns, dtype=torch.bool, device=self.batch.device)
        same_block &= self.batch.is_known.unsqueeze(-2) | is_itself
        for g in range(num_groups):
            rows = slice(num_clean + g * num_columns, num_clean + (g + 1) * num_columns)
            seen[:, rows, :num_clean] = sees_clean
            seen[:, rows, rows] = same_block
        return seen

    def evaluate(self, model: Transformer, alignment: LogitAlignment) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One forward: hidden states of the clean rows [B, C, D], and logits [B, A, V] of each group's columns."""
        hidden = model(self.tokens(), self.positions(), self.visible())
        num_clean, num_columns = self.batch.clean.shape[1], self.batch.answers.shape[1]
        logits = []
        for g in range(len(self.groups)):
            source = self.source_rows(g, alignment) if alignment is LogitAlignment.SHIFTED else None
            first = num_clean + g * num_columns
            rows = (
                hidden[:, first : first + num_columns]
                if source is None
                else hidden.gather(1, source.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
            )
            logits.append(model.logits(rows))
        return hidden[:, :num_clean], logits

    def source_rows(self, group: int, alignment: LogitAlignment) -> torch.Tensor:
        """Row whose logits speak of each column of ``group``: int64 [B, A].

        With shifted logits that is the slot before; of a block's first slot, the last clean row before the block.
        """
        num_clean, num_columns = self.batch.clean.shape[1], self.batch.answers.shape[1]
        columns = torch.arange(num_columns, device=self.batch.device)
        own = num_clean + group * num_columns + columns
        if alignment is LogitAlignment.SAME_POSITION:
            return own.expand(len(self.batch.answers), -1)
        start = self.partition.start_of
        before = (self.batch.num_prompt.unsqueeze(-1) + start - 1).clamp_max(num_clean - 1)
        return torch.where(columns == start, before, own - 1)

    def clean_logits(self, model: Transformer, hidden: torch.Tensor) -> torch.Tensor:
        """Next-token logits [B, A, V] of the clean path for every answer column, from clean ``hidden`` [B, C, D]."""
        columns = torch.arange(self.batch.answers.shape[1], device=self.batch.device)
        rows = (self.batch.num_prompt.unsqueeze(-1) - 1 + columns).clamp_max(hidden.shape[1] - 1)
        return model.logits(hidden.gather(1, rows.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])))
