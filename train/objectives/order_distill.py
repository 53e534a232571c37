"""Constrained order: fine-tuning along the best of the model's own trajectories (paper, section 3.2, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from diffusion_core.diffusion.losses import token_losses
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser
from train.config import TrainConfig
from train.data.samples import Sample
from train.objective import LossOutput, Objective, ObjectiveState, Saver, make_generator
from train.objectives.block_rows import BlockRows
from train.objectives.corruption import num_columns_for, own_tokens, split_sample
from train.objectives.denoising import CLEAN_WEIGHT, DenoisingObjective, clean_path_loss
from train.objectives.order_pool import TrajectoryPool, make_pool
from train.objectives.sources import make_sources
from train.objectives.starting_point import make_starting_point
from train.rollout import evaluating


@dataclass(frozen=True)
class PoolDraw:
    """What a step needs besides the pool: its number, and which rank of how many draws."""

    step: int
    rank: int
    world_size: int


class OrderDistillation:
    """Eq. 9: L_c = E over kept trajectories and their states of -lambda(x_i) log p(x_0 | f(x_i)).

    x_0 is the trajectory's own result. f is light edit noise on the tokens that x_i already shows. lambda weights a
    masked position with one over the masked share of its block (gamma' / gamma of the linear schedule at the rate of
    x_i), so that every state counts alike however much of it is left to denoise; positions that are not masked have
    weight 1, as in the first term of eq. 6: none is carried over.

    Differs:
        One state of every block is drawn for each trajectory at each step, instead of all states of one block. Each
        process makes the pool for its own prompts.
    """

    def __init__(self, config: TrainConfig, plain: DenoisingObjective) -> None:
        self.config, self.plain = config, plain
        self.pool: TrajectoryPool | None = None
        self._made_at = -1

    def draw(self, step: int, rank: int, world_size: int) -> PoolDraw:
        """Which part of the pool the step learns from; the pool itself belongs to the model and is made in the loss."""
        return PoolDraw(step, rank, world_size)

    def refresh(self, model: Transformer, draw: PoolDraw, step: int) -> TrajectoryPool:
        """The pool of this step, made anew from the current model every ``order.refresh_every`` optimiser steps."""
        every = self.config.order.refresh_every
        due = 0 if every == 0 else step // every
        if self.pool is None or due != self._made_at:
            self.pool, self._made_at = self.make_pool(model, due, draw.rank, draw.world_size), due
        elif self.pool.final.device != model.device:
            self.pool = self.pool.to(model.device)  # a saved one is read to the CPU
        return self.pool

    def make_pool(self, model: Transformer, number: int, rank: int, world_size: int) -> TrajectoryPool:
        """Pool number ``number`` of this rank, from the next prompts of the training data."""
        order, sequences = self.config.order, self.config.data.sequences
        wanted = max(1, order.pool_sequences // world_size)
        samples: list[Sample] = []
        step = number * -(-order.pool_sequences // sequences)
        while len(samples) < wanted:
            samples += self.plain.train.batch(step, rank, world_size)
            step += 1
        samples = samples[:wanted]
        with evaluating(model):
            return make_pool(
                self.plain.denoiser(model),
                [split_sample(sample)[0] for sample in samples],
                order,
                pad_id=self.plain.pad_id,
                max_tokens=num_columns_for(samples, 1),
                key=(self.config.seed, "pool", number, rank),
            )

    def loss(self, model: nn.Module, batch: PoolDraw, step: int) -> LossOutput:
        """Eq. 9 for trajectories drawn from the pool."""
        assert isinstance(model, Transformer)
        pool = self.refresh(model, batch, step)
        generator = make_generator(self.config.seed, "order", batch.step, batch.rank)
        num = max(1, self.config.data.sequences // batch.world_size)
        index = torch.randint(len(pool.final), (num,), generator=generator)
        chosen = pool.select(index.to(pool.final.device))
        mask_id, x_0 = self.plain.start.mask_id, chosen.final
        x_i = chosen.draw_states(generator)
        rows = BlockRows(chosen.batch(self.plain.pad_id), chosen.partition(), (self.add_noise(chosen, x_i, generator),))
        alignment = self.plain.start.contract.alignment
        hidden, (logits,) = rows.evaluate(model, alignment)
        counted, is_masked = rows.is_counted, x_i == mask_id
        losses = token_losses(logits, x_0, mask_id)
        weight = torch.where(is_masked, state_weight(is_masked, rows.partition.block_of), 1.0)
        clean_term = CLEAN_WEIGHT * clean_path_loss(model, rows, hidden, alignment, mask_id)
        return LossOutput(
            loss_sum=(losses * weight * counted).sum() + clean_term,
            count=int(counted.sum()),
            metrics={
                "order_loss": ((losses.detach() * is_masked * counted).sum(), (is_masked & counted).sum()),
                "pool_score": (pool.score.mean(), 1.0),
                "pool_steps": (block_steps(chosen).sum(), len(chosen.final)),
            },
            batch_ids=[f"pool/{self._made_at}/{i}" for i in index.tolist()],
            num_tokens=rows.tokens().numel(),
            num_sequences=num,
        )

    def add_noise(self, chosen: TrajectoryPool, x_i: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """F of eq. 9: substitutions at rate ``order.edit_rate`` among the tokens that x_i shows, masks stay masks.

        Differs:
            Only substitutions: an insertion or a deletion would move the masks away from the positions whose weight
            and order they stand for.
        """
        rate, mask_id = self.config.order.edit_rate, self.plain.start.mask_id
        if rate == 0:
            return x_i
        noisy = []
        for row in x_i:
            shown = own_tokens(row, mask_id)
            if len(shown) < 2:
                noisy.append(row)
                continue
            uniform = torch.rand(row.shape, generator=generator, device=generator.device).to(row.device)
            drawn = torch.randint(len(shown), row.shape, generator=generator).to(row.device)
            noisy.append(torch.where((uniform < rate) & (row != mask_id), shown[drawn], row))
        return torch.stack(noisy)

    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        """The figures of the edit stage."""
        return self.plain.evaluate(model, step)

    def denoiser(self, model: nn.Module) -> Denoiser:
        """The model in training as the decoder sees it."""
        return self.plain.denoiser(model)

    def state(self) -> ObjectiveState:
        """The pool, with which a resumed run goes on."""
        if self.pool is None:
            return ObjectiveState(values={"made_at": self._made_at})
        return ObjectiveState(tensors=self.pool.tensors(), values={"made_at": self._made_at})

    def load_state(self, state: ObjectiveState) -> None:
        """Take over the pool of a saved state.

        One of another number of processes is left: the prompts of its pool are not this process's part of the data. So
        is one of an older version, which did not say which of its trajectories ended.
        """
        if not state.is_own or (state.tensors and "is_finished" not in state.tensors):
            self.pool, self._made_at = None, -1
            return
        self._made_at = int(state.values["made_at"])
        self.pool = TrajectoryPool(**state.tensors) if state.tensors else None


def state_weight(is_masked: torch.Tensor, block_of: torch.Tensor) -> torch.Tensor:
    """lambda(x_i): one over the masked share of each column's block, float32 [P, A]; 1 where nothing is masked."""
    num_blocks = int(block_of.max()) + 1
    zeros = torch.zeros(len(block_of), num_blocks, device=block_of.device)
    masked = zeros.scatter_add(1, block_of, is_masked.float())
    size = zeros.scatter_add(1, block_of, torch.ones_like(is_masked, dtype=torch.float))
    share = (masked / size.clamp_min(1)).gather(1, block_of)
    return torch.where(share > 0, 1 / share.clamp_min(1e-9), 1.0)


def block_steps(pool: TrajectoryPool) -> torch.Tensor:
    """Denoising steps of each trajectory's whole answer: int64 [P]."""
    is_first = pool.starts == torch.arange(pool.starts.shape[1], device=pool.starts.device)
    reached = is_first & (pool.starts < pool.num_answer.unsqueeze(-1))
    return (pool.num_steps * reached).sum(-1)


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """Model, objective of eq. 9 and saver; ``model.base`` is the checkpoint of the edit stage."""
    start = make_starting_point(config, device)
    plain = DenoisingObjective(config, start, make_sources(config, start.tokenizer, start.contract), with_edits=True)
    return start.model, OrderDistillation(config, plain), start.saver()
