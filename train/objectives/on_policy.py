"""On-policy learning: fewer denoising steps at the verifier's approval (paper, section 3.3, eq. 10-11)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from diffusion_core.diffusion.trajectory import surrogate_to_go
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser
from train.config import TrainConfig
from train.data.samples import Sample
from train.objective import LossOutput, Objective, ObjectiveState, Saver, make_generator
from train.objectives.corruption import NoisyAnswers, num_columns_for, split_sample
from train.objectives.denoising import DenoisingObjective
from train.objectives.evaluation import serving_settings
from train.objectives.sources import make_sources
from train.objectives.starting_point import make_starting_point
from train.rollout import (
    AnswerRollout,
    BlockRollout,
    Commit,
    RolloutSettings,
    block_logits,
    commit_probability,
    evaluating,
    roll_out,
)
from train.verifier import Attempt, Verifier, make_verifier

# 1 - c of a slot that did not commit is kept off 0, where its logarithm has a pole.
_MIN_STAY = 1e-3


@dataclass(frozen=True)
class PolicyDraw:
    """Prompts of a step, and noisy answers for the share of the mask objective that is kept."""

    samples: list[Sample]
    noisy: NoisyAnswers
    step: int
    rank: int


class OnPolicy:
    """Eq. 10: minimise E[ |tau| - V(tau[0]) ] over trajectories of the model itself.

    Rollouts commit by chance around the threshold (:func:`commit_probability`), so that a trajectory has a
    probability: that of the tokens drawn times that of which slots committed. Both terms are optimised with the
    log-derivative trick. For V every decision of an answer gets V minus a baseline: the mean of the other rollouts of
    the same prompt, or a moving mean where there is only one. For |tau| a decision gets what its block still costs
    from there on by the surrogate of eq. 11, minus the mean of the other rollouts at the same step of the same block.

    Differs:
        The paper does not say how the length enters the gradient; a score-function estimate of the surrogate's cost
        to go is used. ``on_policy.length=direct`` is the paper's failed alternative: every decision gets the plain
        number of steps of the whole answer. A share ``on_policy.mask_weight`` of the edit stage's loss keeps the
        density model in place.
    """

    def __init__(self, config: TrainConfig, plain: DenoisingObjective, verifier: Verifier) -> None:
        self.config, self.plain, self._verifier = config, plain, verifier
        self._moving: float | None = None

    def draw(self, step: int, rank: int, world_size: int) -> PolicyDraw:
        """Prompts of a step with their noisy answers."""
        samples = self.plain.train.batch(step, rank, world_size)
        numbers = list(range(rank, self.config.data.sequences, world_size))
        return PolicyDraw(samples, self.plain.corrupt(samples, ("train", step), numbers), step, rank)

    def loss(self, model: nn.Module, batch: PolicyDraw, step: int) -> LossOutput:
        """Score-function loss of fresh rollouts, per rollout, and the kept share of eq. 6."""
        assert isinstance(model, Transformer)
        policy, denoiser = self.config.on_policy, self.plain.denoiser(model)
        samples = [sample for sample in batch.samples for _ in range(policy.rollouts)]
        rollout = self.roll_out(denoiser, samples, batch)
        values = self.judge(samples, rollout)
        advantage = policy.verifier_weight * (values - self._value_baseline(values)).to(model.device)
        # One forward for all blocks: processes that share a divided model must take the same number of them.
        likelihoods = step_log_likelihoods(denoiser, rollout.blocks, self.settings(denoiser))
        total, surrogate = torch.zeros((), device=model.device), torch.zeros((), device=model.device)
        for block, likelihood in zip(rollout.blocks, likelihoods, strict=True):
            costs = self._costs(block, rollout)
            surrogate += surrogate_to_go(block.states, block.num_states)[:, 0].sum()
            gain = advantage[block.samples].unsqueeze(-1) - policy.length_weight * (
                costs - leave_one_out(costs, block.samples // policy.rollouts)
            )
            total = total - (likelihood * gain.detach()).sum()
        if policy.mask_weight > 0:
            kept = self.plain.loss(model, batch.noisy, step)
            total = total + policy.mask_weight * len(samples) * kept.loss_sum / kept.count
        num_blocks = sum(len(block.contexts) for block in rollout.blocks)
        return LossOutput(
            loss_sum=total,
            count=len(samples),
            metrics={
                "verifier": (values.sum(), len(samples)),
                "rollout_steps": (rollout.num_steps.sum(), len(samples)),
                "steps_per_block": (rollout.num_steps.sum(), num_blocks),
                "surrogate": (surrogate, num_blocks),
            },
            batch_ids=[sample.id for sample in batch.samples],
            num_tokens=sum(len(sample.tokens) for sample in samples),
            num_sequences=len(samples),
        )

    def settings(self, denoiser: Denoiser) -> RolloutSettings:
        """The serving decoder's settings with drawn tokens and commits."""
        serving, policy = serving_settings(denoiser), self.config.on_policy
        return RolloutSettings(
            block_size=serving.block_size,
            tau=serving.tau,
            tau_low=serving.tau_low,
            temperature=policy.temperature,
            commit=Commit.SAMPLED,
            max_steps=policy.max_steps,
        )

    def roll_out(self, denoiser: Denoiser, samples: Sequence[Sample], batch: PolicyDraw) -> AnswerRollout:
        """Fresh trajectories from the current model."""
        with evaluating(denoiser.model):
            return roll_out(
                denoiser,
                [split_sample(sample)[0] for sample in samples],
                self.settings(denoiser),
                make_generator(self.config.seed, "rollout", batch.step, batch.rank),
                max_tokens=num_columns_for(samples, 1),
            )

    def judge(self, samples: Sequence[Sample], rollout: AnswerRollout) -> torch.Tensor:
        """V of each answer, float32 [n] on the CPU; an answer that did not end has 0."""
        stops = set(self.plain.start.contract.stop_token_ids)
        attempts = [
            Attempt(s, a.cpu(), self.plain.start.tokenizer.decode([t for t in a.tolist() if t not in stops]))
            for s, a in zip(samples, rollout.answers, strict=True)
        ]
        return self._verifier.score(attempts) * rollout.has_stopped.cpu()

    def _value_baseline(self, values: torch.Tensor) -> torch.Tensor:
        """What V was to be expected, without the rollout's own: float32 [n]."""
        policy = self.config.on_policy
        mean = float(values.mean())
        before = mean if self._moving is None else self._moving
        self._moving = policy.baseline_decay * before + (1 - policy.baseline_decay) * mean
        if policy.rollouts == 1:
            return torch.full_like(values, before)
        groups = torch.arange(len(values)) // policy.rollouts
        return leave_one_out(values.unsqueeze(-1), groups).squeeze(-1)

    def _costs(self, block: BlockRollout, rollout: AnswerRollout) -> torch.Tensor:
        """What each step of each row is charged: float32 [n, S - 1]."""
        num_steps = block.states.shape[1] - 1
        match self.config.on_policy.length:
            case "surrogate":
                return surrogate_to_go(block.states, block.num_states)
            case "direct":
                return rollout.num_steps[block.samples].float().unsqueeze(-1).expand(-1, num_steps)
            case _:
                return torch.zeros(len(block.states), num_steps, device=block.states.device)

    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        """The figures of the edit stage; steps per answer over training are the curve of figure 2a."""
        return self.plain.evaluate(model, step)

    def denoiser(self, model: nn.Module) -> Denoiser:
        """The model in training as the decoder sees it."""
        return self.plain.denoiser(model)

    def state(self) -> ObjectiveState:
        """The moving baseline."""
        return ObjectiveState(values={"moving": self._moving})

    def load_state(self, state: ObjectiveState) -> None:
        """Continue with a saved baseline."""
        self._moving = state.values["moving"]


def leave_one_out(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Mean over the other rows of each row's group, [n, S]; a row alone in its group gets its own value."""
    num_groups = int(groups.max()) + 1
    total = values.new_zeros(num_groups, values.shape[1]).index_add(0, groups, values)
    count = values.new_zeros(num_groups).index_add(0, groups, torch.ones_like(values[:, 0]))[groups].unsqueeze(-1)
    return torch.where(count > 1, (total[groups] - values) / (count - 1).clamp_min(1), values)


def step_log_likelihoods(
    denoiser: Denoiser, blocks: Sequence[BlockRollout], settings: RolloutSettings
) -> list[torch.Tensor]:
    """log-probability of what each step of each rollout decided, with gradient: float32 [n, S - 1] for every block.

    A committed slot: its token's log-likelihood, plus that of committing unless it had to. A slot that stayed masked:
    the log-likelihood of not committing. Reopening follows from the probabilities alone and adds nothing; so do the
    steps behind the end of a row.
    """
    happened = [_happened(block) for block in blocks]
    contexts = [block.contexts[row] for block, (rows, _) in zip(blocks, happened, strict=True) for row in rows.tolist()]

    def gather(name: str, offset: int = 0) -> torch.Tensor:
        pairs = zip(blocks, happened, strict=True)
        return torch.cat([getattr(block, name)[rows, steps + offset] for block, (rows, steps) in pairs])

    before, after, commits, forced = gather("states"), gather("states", 1), gather("commits"), gather("forced")
    logits = block_logits(denoiser, contexts, before)
    drawn_from = (logits / settings.temperature if settings.temperature > 0 else logits).log_softmax(-1)
    token = drawn_from.gather(-1, after.masked_fill(~commits, 0).unsqueeze(-1)).squeeze(-1)
    chance = commit_probability(logits.softmax(-1).amax(-1), settings.tau)
    zero = chance.new_zeros(())
    stays = (before == blocks[0].mask_id) & ~commits
    decided = (
        torch.where(commits, token, zero)
        + torch.where(commits & ~forced, chance.clamp_min(1e-9).log(), zero)
        + torch.where(stays, (1 - chance).clamp_min(_MIN_STAY).log(), zero)
    ).sum(-1)
    parts = torch.split(decided, [len(rows) for rows, _ in happened])
    return [
        part.new_zeros(block.commits.shape[:2]).index_put(index, part)
        for part, block, index in zip(parts, blocks, happened, strict=True)
    ]


def _happened(block: BlockRollout) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and steps of a rollout that were taken: two int64 [k]."""
    steps = torch.arange(block.commits.shape[1], device=block.states.device)
    rows, taken = (steps < (block.num_states - 1).unsqueeze(-1)).nonzero(as_tuple=True)
    return rows, taken


def build(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Objective, Saver]:
    """Model, objective of eq. 10 and saver; ``model.base`` is the checkpoint of the stage before."""
    start = make_starting_point(config, device)
    plain = DenoisingObjective(config, start, make_sources(config, start.tokenizer, start.contract), with_edits=True)
    judge = start.model
    if config.on_policy.verifier == "likelihood":
        judge = copy.deepcopy(start.model).requires_grad_(False).eval()
    verifier = make_verifier(config.on_policy.verifier, judge, start.contract, start.tokenizer)
    return start.model, OnPolicy(config, plain, verifier), start.saver()
