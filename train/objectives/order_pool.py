"""A pool of trajectories of the current model, and what is kept of it (paper, section 3.2).

For every prompt the model answers several times, with different temperatures, commit orders and block sizes. The
evidence lower bound filters the pool; what is kept is stored as tensors, so that a resumed run has the same pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from diffusion_core.diffusion.elbo import estimate_elbo
from diffusion_core.sampling.evaluate import Denoiser
from train.config import OrderConfig
from train.objective import make_generator
from train.objectives.block_rows import AnswerBatch, BlockRows, Partition, pad_answers
from train.objectives.evaluation import serving_settings
from train.rollout import AnswerRollout, Order, RolloutSettings, roll_out

_ROWS_AT_ONCE = 64

# What an answer that did not end loses of its score: it ranks behind all that did.
_UNFINISHED = 1e6


@dataclass(frozen=True)
class TrajectoryPool:
    """P kept trajectories over A columns; every tensor is int64, but ``score`` float32 and ``is_finished`` bool [P].

    ``prompts`` [P, C] with ``num_prompt`` [P]; ``final`` [P, A] is x_0 (tau[0]) with ``num_answer`` [P], which ended
    with a stop token if ``is_finished`` [P] and else at the limit; ``states`` [P, S, A] the canvas at each step:
    column a holds its block's state s, for s < ``num_steps`` [P, A] of that block; ``starts`` [P, A] is the first
    column of each column's block.
    """

    prompts: torch.Tensor
    num_prompt: torch.Tensor
    final: torch.Tensor
    num_answer: torch.Tensor
    is_finished: torch.Tensor
    states: torch.Tensor
    num_steps: torch.Tensor
    starts: torch.Tensor
    score: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """By name, for a saved state."""
        return {f.name: getattr(self, f.name).contiguous() for f in fields(self)}

    def select(self, index: torch.Tensor) -> TrajectoryPool:
        """The trajectories at ``index``."""
        return TrajectoryPool(**{name: tensor[index] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device) -> TrajectoryPool:
        """The same on another device."""
        return TrajectoryPool(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def batch(self, pad_id: int) -> AnswerBatch:
        """Prompts with the trajectories' own results as clean answers."""
        prompts = [row[:n] for row, n in zip(self.prompts, self.num_prompt.tolist(), strict=True)]
        answers = [row[:n] for row, n in zip(self.final, self.num_answer.tolist(), strict=True)]
        finished = self.is_finished.tolist()
        return pad_answers(prompts, answers, pad_id, num_columns=self.final.shape[1], is_finished=finished)

    def partition(self) -> Partition:
        """The trajectories' own blocks."""
        return partition_from_starts(self.starts)

    def draw_states(self, generator: torch.Generator) -> torch.Tensor:
        """A canvas int64 [P, A] with one state x_i of every block, i even over the steps before the last state."""
        uniform = torch.rand(self.starts.shape, generator=generator, device=generator.device).to(self.starts.device)
        # One number a block: that of its first column.
        uniform = uniform.gather(1, self.starts)
        step = (uniform * self.num_steps).long().clamp_max(self.states.shape[1] - 1)
        return self.states.gather(1, step.unsqueeze(1)).squeeze(1)


def partition_from_starts(starts: torch.Tensor) -> Partition:
    """The partition whose columns' blocks begin at ``starts`` int64 [P, A] (non-decreasing along the columns)."""
    num_columns = starts.shape[1]
    is_first = starts == torch.arange(num_columns, device=starts.device)
    block_of = is_first.long().cumsum(-1) - 1
    num_blocks = int(block_of.max()) + 1
    sizes = torch.zeros(len(starts), num_blocks, dtype=torch.long, device=starts.device)
    sizes.scatter_add_(1, block_of, torch.ones_like(block_of))
    firsts = (sizes.cumsum(-1) - sizes).clamp_max(num_columns - 1)
    return Partition(firsts, sizes, block_of)


def block_sizes(base: RolloutSettings) -> tuple[int, int, int]:
    """The serving decoder's block, its half and its quarter. None is larger: the model was not trained for it."""
    return base.block_size, max(1, base.block_size // 2), max(1, base.block_size // 4)


def rollout_variants(base: RolloutSettings, config: OrderConfig) -> list[RolloutSettings]:
    """``config.pool`` ways to answer, by temperature, order and block size (:func:`block_sizes`).

    The first is the serving decoder's own. The others run through the combinations like a Latin square, so that even
    a few of them differ in everything.
    """
    orders = (Order.CONFIDENCE, Order.LEFT_TO_RIGHT, Order.RANDOM)
    sizes = block_sizes(base)
    num_temperatures = len(config.temperatures)
    variants = [base]
    for number in range(1, config.pool):
        row, column = divmod(number, num_temperatures)
        variant = replace(
            base,
            temperature=config.temperatures[column],
            order=orders[(column + row) % 3],
            block_size=sizes[(2 * column + row + row // 3) % 3],
        )
        variants.append(variant)
    return variants


@torch.no_grad()
def make_pool(
    denoiser: Denoiser,
    prompts: Sequence[torch.Tensor],
    config: OrderConfig,
    *,
    pad_id: int,
    max_tokens: int,
    key: tuple[int | str, ...],
) -> TrajectoryPool:
    """Answer every prompt ``config.pool`` times and keep the ``config.keep`` best by :func:`score_trajectories`.

    An answer that did not end ranks behind all that did.
    """
    base = serving_settings(denoiser)
    unit = math.lcm(*block_sizes(base))
    num_columns = -(-max_tokens // unit) * unit
    kept = []
    for first in range(0, len(prompts), _ROWS_AT_ONCE):
        part = prompts[first : first + _ROWS_AT_ONCE]
        parts = []
        for number, settings in enumerate(rollout_variants(base, config)):
            generator = make_generator(*key, "rollout", number, first)
            rollout = roll_out(denoiser, part, settings, generator, max_tokens=num_columns)
            candidate = collect_trajectories(part, rollout, settings.block_size, num_columns, pad_id)
            score = score_trajectories(denoiser, candidate, config.elbo_samples, pad_id, (*key, "elbo", first))
            parts.append(replace(candidate, score=torch.where(rollout.has_stopped, score, score - _UNFINISHED)))
        scores = torch.stack([candidate.score for candidate in parts])  # [pool, n]
        best = scores.topk(min(config.keep, len(parts)), dim=0).indices
        rows = torch.arange(scores.shape[1], device=best.device)
        kept.append(_join(parts).select((best * scores.shape[1] + rows).flatten()))
    return _join(kept)


def _join(pools: Sequence[TrajectoryPool]) -> TrajectoryPool:
    """One after the other; prompts and steps are padded to the longest."""
    width = max(pool.prompts.shape[1] for pool in pools)
    depth = max(pool.states.shape[1] for pool in pools)

    def widen(pool: TrajectoryPool) -> dict[str, torch.Tensor]:
        last = pool.states[:, -1:].expand(-1, depth - pool.states.shape[1], -1)
        prompts = torch.nn.functional.pad(pool.prompts, (0, width - pool.prompts.shape[1]))
        return pool.tensors() | {"prompts": prompts, "states": torch.cat((pool.states, last), dim=1)}

    widened = [widen(pool) for pool in pools]
    return TrajectoryPool(**{name: torch.cat([w[name] for w in widened]) for name in widened[0]})


def collect_trajectories(
    prompts: Sequence[torch.Tensor], rollout: AnswerRollout, block_size: int, num_columns: int, pad_id: int
) -> TrajectoryPool:
    """The rollout's blocks, laid side by side on canvases of ``num_columns``; columns never reached hold ``pad_id``."""
    device = rollout.num_steps.device
    num = len(prompts)
    depth = max(block.states.shape[1] for block in rollout.blocks)
    states = torch.full((num, depth, num_columns), pad_id, device=device)
    num_steps = torch.ones(num, num_columns, dtype=torch.long, device=device)
    for number, block in enumerate(rollout.blocks):
        columns = slice(number * block_size, (number + 1) * block_size)
        last = block.states[:, -1:].expand(-1, depth - block.states.shape[1], -1)
        states[block.samples, :, columns] = torch.cat((block.states, last), dim=1)
        num_steps[block.samples, columns] = (block.num_states - 1).unsqueeze(-1)
    num_answer = torch.tensor([len(answer) for answer in rollout.answers], device=device)
    starts = torch.arange(num_columns, device=device) // block_size * block_size
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    padded = torch.nn.utils.rnn.pad_sequence([p.to(device) for p in prompts], batch_first=True)
    return TrajectoryPool(
        prompts=padded,
        num_prompt=lengths,
        final=states[:, -1],
        num_answer=num_answer,
        is_finished=rollout.has_stopped.to(device),
        states=states,
        num_steps=num_steps,
        starts=starts.expand(num, -1),
        score=torch.zeros(num, device=device),
    )


@torch.no_grad()
def score_trajectories(
    denoiser: Denoiser, pool: TrajectoryPool, num_samples: int, pad_id: int, key: tuple[int | str, ...]
) -> torch.Tensor:
    """Evidence lower bound per token of each trajectory's result, plus that of its own order: float32 [P].

    The first part is eq. 5 (as a bound) for x_0 given the prompt; the same random numbers for every candidate of a
    prompt, so that their difference is not noise. The second is the inner sum of eq. 7 for the one order that the
    trajectory stands for: log p of every token at the step that committed it.

    Differs:
        The paper says only "maximizing the ELBO". The bound alone is an average over all orders and cannot tell two
        trajectories with the same result apart; the order's own likelihood does.
    """
    mask_id = denoiser.contract.mask_token_id
    assert mask_id is not None
    batch, partition = pool.batch(pad_id), pool.partition()
    rows = BlockRows(batch, partition, (pool.final,))
    counted = rows.is_counted

    def denoise(x_t: torch.Tensor) -> torch.Tensor:
        return BlockRows(batch, partition, (x_t,)).evaluate(denoiser.model, denoiser.contract.alignment)[1][0]

    bound = estimate_elbo(
        denoise,
        pool.final,
        mask_id,
        num_samples=max(2, num_samples),
        generator=make_generator(*key),
        may_mask=counted,
    ).mean
    along = torch.zeros_like(bound)
    for step in range(pool.states.shape[1] - 1):
        now, after = pool.states[:, step], pool.states[:, step + 1]
        commits = (now == mask_id) & (after != mask_id) & counted & (step < pool.num_steps)
        if commits.any():
            logits = denoise(now).index_fill(-1, torch.tensor([mask_id], device=now.device), float("-inf"))
            chosen = after.masked_fill(after == mask_id, 0).unsqueeze(-1)
            likelihood = logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)
            along += torch.where(commits, likelihood, 0.0).sum(-1)
    return (bound + along) / counted.sum(-1)
