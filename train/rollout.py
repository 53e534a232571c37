"""Rollouts: blocks of many samples denoised together, with every state kept (paper, sections 3.2-3.4).

The rules are those of the serving decoder's parallel policies, batched; with ``threshold`` commits, order
``confidence`` and temperature 0 the result equals the decoder's token for token and forward for forward (a test holds
the two together). What serving does not need is added here: sampled commits, whose probability can be differentiated,
other orders, and blocks that start from a draft instead of masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch.distributed.fsdp import FSDPModule

from diffusion_core.diffusion.losses import ban_mask_token
from diffusion_core.diffusion.trajectory import Trajectory
from diffusion_core.errors import ConfigError
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.parallel import MAX_REOPENINGS
from train.objectives.block_rows import AnswerBatch, BlockRows, Partition, check_contract

# A sampled commit happens with probability p ** kappa; kappa is such that it is even at p = tau.
_EVEN = math.log(0.5)


class Commit(StrEnum):
    """How masked slots are chosen to commit: always at the threshold tau, or by chance around it."""

    THRESHOLD = "threshold"
    SAMPLED = "sampled"


class Order(StrEnum):
    """Which masked slot commits when none reaches the threshold."""

    CONFIDENCE = "confidence"
    LEFT_TO_RIGHT = "left_to_right"
    RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How blocks are denoised. ``tau`` and ``tau_low`` as in serving; ``temperature`` 0 takes the best token."""

    block_size: int
    tau: float = 0.9
    tau_low: float = 0.1
    temperature: float = 0.0
    commit: Commit = Commit.THRESHOLD
    order: Order = Order.CONFIDENCE
    max_steps: int = 64

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.max_steps < 1:
            raise ConfigError(f"block_size {self.block_size} and max_steps {self.max_steps}: at least 1 each")
        if not 0 < self.tau < 1 or not 0 <= self.tau_low < 1:
            raise ConfigError(f"tau is {self.tau} and tau_low {self.tau_low}: tau in (0, 1), tau_low in [0, 1)")


@dataclass(frozen=True)
class BlockRollout:
    """One block of n samples. States are in the order of sampling (tau[K] first).

    ``samples`` int64 [n]: which sample each row belongs to; ``contexts``: its clean tokens before the block.
    ``states`` int64 [n, S, M]; ``num_states`` int64 [n], at least 2; states behind the last repeat it.
    ``commits`` and ``forced`` bool [n, S - 1, M]: slots committed in each step, and those that had to be.
    """

    samples: torch.Tensor
    contexts: list[torch.Tensor]
    states: torch.Tensor
    num_states: torch.Tensor
    commits: torch.Tensor
    forced: torch.Tensor
    mask_id: int

    @property
    def final(self) -> torch.Tensor:
        """Denoised blocks: int64 [n, M]."""
        return self.states[:, -1]

    def trajectory(self, row: int) -> Trajectory:
        """Trajectory of one row."""
        return Trajectory(self.states[row, : int(self.num_states[row])], self.mask_id)


@dataclass(frozen=True)
class AnswerRollout:
    """Whole answers: tokens of each sample up to its stop token, denoising steps int64 [n], and all blocks."""

    answers: list[torch.Tensor]
    num_steps: torch.Tensor
    has_stopped: torch.Tensor
    blocks: list[BlockRollout]


@contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """Evaluation mode, with a model that is divided among processes held whole by each of them.

    Rollouts of different processes take different numbers of forwards; a forward that had to gather weights would
    wait for a partner that has already finished.
    """
    was_training = model.training
    parts = [(name, part) for name, part in model.named_modules() if isinstance(part, FSDPModule)]
    model.eval()
    for _, part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for name, part in parts:
            # The root's weights stay whole between forward and backward in training, too (train/distributed.py).
            part.set_reshard_after_forward(bool(name), recurse=False)
            part.reshard()
        model.train(was_training)


def active_rows(contexts: Sequence[torch.Tensor], slots: torch.Tensor, pad_id: int) -> BlockRows:
    """Rows of one forward over clean ``contexts`` and the active block's ``slots`` int64 [n, M]."""
    num, size = slots.shape
    lengths = torch.tensor([len(context) for context in contexts], device=slots.device)
    clean = torch.nn.utils.rnn.pad_sequence(list(contexts), batch_first=True, padding_value=float(pad_id))
    whole = torch.ones_like(lengths, dtype=torch.bool)
    batch = AnswerBatch(clean, lengths, slots, torch.full_like(lengths, size), whole, pad_id)
    zeros = torch.zeros(num, 1, dtype=torch.long, device=slots.device)
    partition = Partition(zeros, zeros + size, zeros.expand(-1, size))
    return BlockRows(batch, partition, (slots,))


def block_logits(denoiser: Denoiser, contexts: Sequence[torch.Tensor], slots: torch.Tensor) -> torch.Tensor:
    """Scores [n, M, V] of every slot given its clean context and its block; the mask token is banned."""
    mask_id = check_contract(denoiser.contract)
    rows = active_rows(contexts, slots, pad_id=0)
    _, (logits,) = rows.evaluate(denoiser.model, denoiser.contract.alignment)
    banned = [t for t in denoiser.contract.banned_token_ids if t < logits.shape[-1]]
    if banned:
        logits = logits.index_fill(-1, torch.tensor(banned, device=logits.device), float("-inf"))
    return ban_mask_token(logits, mask_id)


@torch.no_grad()
def denoise_block(
    denoiser: Denoiser,
    contexts: Sequence[torch.Tensor],
    settings: RolloutSettings,
    generator: torch.Generator,
    *,
    initial: torch.Tensor | None = None,
    samples: torch.Tensor | None = None,
) -> BlockRollout:
    """Denoise one block behind each context (section 3.4), all samples together.

    ``initial`` int64 [n, M] starts from a draft: its tokens that are not masks are re-evaluated at every step and
    reopened where their probability is under ``tau_low`` (remark 3.1).
    """
    mask_id = check_contract(denoiser.contract)
    device, num = denoiser.model.device, len(contexts)
    shape = (num, settings.block_size)
    tokens = torch.full(shape, mask_id, device=device) if initial is None else initial.clone()
    is_masked = tokens == mask_id
    reopened = torch.zeros(shape, dtype=torch.long, device=device)
    is_active = torch.ones(num, dtype=torch.bool, device=device)
    num_states = torch.ones(num, dtype=torch.long, device=device)
    states, commits, forced = [tokens], [], []
    for step in range(settings.max_steps):
        index = is_active.nonzero().flatten()
        logits = block_logits(denoiser, [contexts[i] for i in index.tolist()], tokens[index])
        chosen, confidence = _choose(logits, tokens[index], is_masked[index], settings, generator)
        is_last = step == settings.max_steps - 1
        commit, force = _select(confidence, is_masked[index], settings, generator, takes_all=is_last)
        may_reopen = ~is_masked[index] & (reopened[index] < MAX_REOPENINGS)
        reopen = may_reopen & (confidence < (0.0 if is_last else settings.tau_low))
        tokens, is_masked = tokens.clone(), is_masked.clone()
        tokens[index] = torch.where(commit, chosen, tokens[index]).masked_fill(reopen, mask_id)
        is_masked[index] = (is_masked[index] & ~commit) | reopen
        reopened[index] += reopen.long()
        states.append(tokens)
        commits.append(_scatter(commit, index, shape))
        forced.append(_scatter(force, index, shape))
        num_states[index] += 1
        is_active = is_active & is_masked.any(-1)
        if not is_active.any():
            break
    return BlockRollout(
        samples=torch.arange(num, device=device) if samples is None else samples,
        contexts=list(contexts),
        states=torch.stack(states, dim=1),
        num_states=num_states,
        commits=torch.stack(commits, dim=1),
        forced=torch.stack(forced, dim=1),
        mask_id=mask_id,
    )


def _scatter(values: torch.Tensor, index: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    full = torch.zeros(shape, dtype=values.dtype, device=values.device)
    full[index] = values
    return full


def _choose(
    logits: torch.Tensor,
    tokens: torch.Tensor,
    is_masked: torch.Tensor,
    settings: RolloutSettings,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token for each slot, and the confidence [n, M]: that of the slot's new or current token, at temperature 1."""
    scores = logits
    if settings.temperature > 0:
        uniform = torch.rand(logits.shape, generator=generator, device=generator.device).to(logits.device)
        scores = logits / settings.temperature - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
    chosen = scores.argmax(-1)
    current = torch.where(is_masked, chosen, tokens)
    probabilities = logits.softmax(-1)
    confidence = probabilities.gather(-1, current.unsqueeze(-1)).squeeze(-1)
    if settings.commit is Commit.SAMPLED:
        # Whether to commit must not depend on the token drawn: it is the best token's probability that decides.
        confidence = torch.where(is_masked, probabilities.amax(-1), confidence)
    return chosen, confidence


def _select(
    confidence: torch.Tensor,
    is_masked: torch.Tensor,
    settings: RolloutSettings,
    generator: torch.Generator,
    *,
    takes_all: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots that commit, and those of them that had to (the fallback that makes every step commit one): bool [n, M]."""
    if takes_all:
        return is_masked, is_masked
    uniform = torch.rand(confidence.shape, generator=generator, device=generator.device).to(confidence.device)
    if settings.commit is Commit.SAMPLED:
        commits = is_masked & (uniform < commit_probability(confidence, settings.tau))
    else:
        commits = is_masked & (confidence >= settings.tau)
    columns = torch.arange(confidence.shape[1], device=confidence.device, dtype=confidence.dtype)
    priority = {Order.CONFIDENCE: confidence, Order.LEFT_TO_RIGHT: -columns.expand_as(confidence)}.get(
        settings.order, uniform
    )
    best = priority.masked_fill(~is_masked, float("-inf")).argmax(-1, keepdim=True)
    fallback = torch.zeros_like(is_masked).scatter(-1, best, value=True) & is_masked
    if settings.commit is Commit.SAMPLED:
        # Forced whatever chance said, so that its probability of committing is 1 and needs no gradient.
        return commits | fallback, fallback
    fallback = fallback & ~commits.any(-1, keepdim=True)
    return commits | fallback, fallback


def commit_probability(confidence: torch.Tensor, tau: float) -> torch.Tensor:
    """Chance that a slot of that confidence commits: ``confidence ** kappa``, one half at ``tau``, rising with it."""
    kappa = _EVEN / math.log(tau)
    return confidence.clamp(1e-6, 1.0) ** kappa


@torch.no_grad()
def roll_out(
    denoiser: Denoiser,
    prompts: Sequence[torch.Tensor],
    settings: RolloutSettings,
    generator: torch.Generator,
    *,
    max_tokens: int,
) -> AnswerRollout:
    """Answers to ``prompts``, block after block, until a stop token or ``max_tokens`` (whole blocks)."""
    device, num = denoiser.model.device, len(prompts)
    contexts = [prompt.to(device) for prompt in prompts]
    stops = torch.tensor(sorted(denoiser.contract.stop_token_ids), device=device, dtype=torch.long)
    answers: list[list[torch.Tensor]] = [[] for _ in range(num)]
    num_steps = torch.zeros(num, dtype=torch.long, device=device)
    has_stopped = torch.zeros(num, dtype=torch.bool, device=device)
    blocks: list[BlockRollout] = []
    for _ in range(-(-max_tokens // settings.block_size)):
        index = (~has_stopped).nonzero().flatten()
        block = denoise_block(denoiser, [contexts[i] for i in index.tolist()], settings, generator, samples=index)
        blocks.append(block)
        num_steps[index] += block.num_states - 1
        is_stop = torch.isin(block.final, stops)
        ends = torch.where(is_stop.any(-1), is_stop.long().argmax(-1) + 1, settings.block_size)
        for row, sample in enumerate(index.tolist()):
            answers[sample].append(block.final[row, : int(ends[row])])
            contexts[sample] = torch.cat((contexts[sample], block.final[row]))
        has_stopped[index] = is_stop.any(-1)
        if has_stopped.all():
            break
    return AnswerRollout([torch.cat(parts) for parts in answers], num_steps, has_stopped, blocks)
