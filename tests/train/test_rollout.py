"""Rollouts follow the serving decoder exactly, always end, and their likelihood is that of what they decided."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.tiny_stages import peaked_denoiser, random_prompts

from diffusion_core.errors import ConfigError
from diffusion_core.model.config import LogitAlignment
from diffusion_core.requests import DecodingParams, Policy
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache
from train.grammar import grammar_tokenizer
from train.objectives.on_policy import step_log_likelihoods
from train.rollout import (
    Commit,
    Order,
    RolloutSettings,
    block_logits,
    commit_probability,
    denoise_block,
    roll_out,
)

ALIGNMENTS = [LogitAlignment.SAME_POSITION, LogitAlignment.SHIFTED]


def serve(denoiser: Denoiser, prompt: torch.Tensor, block_size: int, tau: float, tau_low: float, num: int) -> list[int]:
    """Tokens of the serving decoder, and at the end the number of its forwards."""
    sequence = DecodingSequence(denoiser, prompt.tolist(), SequenceCache.create(denoiser, 256), len(prompt))
    decoding = DecodingParams(policy=Policy.CONFIDENCE, block_size=block_size, tau=tau, tau_low=tau_low)
    stops = frozenset(denoiser.contract.stop_token_ids)
    task = DecodingTask(max_tokens=num, decoding=decoding, stop_token_ids=stops)
    decoder = BlockDecoder(denoiser, grammar_tokenizer(), sequence, task)
    for _ in decoder.run():
        pass
    return [*sequence.answer, sequence.num_forwards]


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(("block_size", "tau", "tau_low"), [(4, 0.3, 0.2), (8, 0.9, 0.1), (8, 0.3, 0.6)])
def test_equal_to_the_serving_decoder(alignment: LogitAlignment, block_size: int, tau: float, tau_low: float) -> None:
    denoiser = peaked_denoiser(alignment=alignment)
    prompts = random_prompts(6)
    settings = RolloutSettings(block_size=block_size, tau=tau, tau_low=tau_low)
    found = roll_out(denoiser, prompts, settings, torch.Generator(), max_tokens=16)
    reopenings = 0
    for row, prompt in enumerate(prompts):
        *tokens, forwards = serve(denoiser, prompt, block_size, tau, tau_low, 16)
        answer = found.answers[row].tolist()
        assert answer == tokens[: len(answer)]
        assert int(found.num_steps[row]) == forwards
    for block in found.blocks:
        before, after = block.states[:, :-1], block.states[:, 1:]
        reopenings += int(((before != block.mask_id) & (after == block.mask_id)).sum())
    if tau_low > tau:
        assert reopenings > 0, "the case must exercise remasking"


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("commit", list(Commit))
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_step_commits_and_every_block_ends(order: Order, commit: Commit, temperature: float) -> None:
    settings = RolloutSettings(block_size=8, tau=0.6, tau_low=0.1, temperature=temperature, commit=commit, order=order)
    block = denoise_block(peaked_denoiser(), random_prompts(8), settings, torch.Generator().manual_seed(0))
    assert not (block.final == block.mask_id).any()
    assert (block.final != block.mask_id).all()
    for row in range(8):
        trajectory = block.trajectory(row)
        assert 1 <= trajectory.num_steps <= 8 * 3
        steps = block.commits[row, : trajectory.num_steps]
        assert steps.any(-1).all(), "each step commits at least one slot"
        assert not block.commits[row, trajectory.num_steps :].any()
    assert not (block.forced & ~block.commits).any()


def test_left_to_right_commits_the_first_mask_when_nothing_is_sure() -> None:
    settings = RolloutSettings(block_size=6, tau=0.999999, tau_low=0.0, order=Order.LEFT_TO_RIGHT)
    block = denoise_block(peaked_denoiser(), random_prompts(4), settings, torch.Generator())
    for row, step in itertools.product(range(4), range(int(block.num_states.min()) - 1)):
        state = block.states[row, step]
        first = int((state == block.mask_id).nonzero()[0])
        assert bool(block.commits[row, step, first])


def test_the_last_allowed_step_takes_everything() -> None:
    settings = RolloutSettings(block_size=8, tau=0.999999, tau_low=0.5, max_steps=3)
    block = denoise_block(peaked_denoiser(), random_prompts(5), settings, torch.Generator())
    assert int(block.num_states.max()) == 4 and not (block.final == block.mask_id).any()


def test_a_draft_is_reevaluated_and_sure_tokens_stay() -> None:
    denoiser, prompts = peaked_denoiser(), random_prompts(6)
    settings = RolloutSettings(block_size=8, tau=0.5, tau_low=0.0)
    solved = denoise_block(denoiser, prompts, settings, torch.Generator()).final
    kept = denoise_block(denoiser, prompts, settings, torch.Generator(), initial=solved)
    assert torch.equal(kept.final, solved), "with tau_low 0 nothing is reopened"
    assert kept.num_states.tolist() == [2] * 6
    strict = RolloutSettings(block_size=8, tau=0.5, tau_low=0.9)
    logits = block_logits(denoiser, prompts, solved)
    unsure = logits.softmax(-1).gather(-1, solved.unsqueeze(-1)).squeeze(-1) < 0.9
    reopened = denoise_block(denoiser, prompts, strict, torch.Generator(), initial=solved)
    assert unsure.any()
    assert torch.equal(reopened.states[:, 1] == reopened.mask_id, unsure)


def test_neighbours_do_not_change_a_rollout() -> None:
    denoiser, prompts = peaked_denoiser(), random_prompts(5)
    settings = RolloutSettings(block_size=8, tau=0.4)
    together = roll_out(denoiser, prompts, settings, torch.Generator(), max_tokens=16)
    for row, prompt in enumerate(prompts):
        alone = roll_out(denoiser, [prompt], settings, torch.Generator(), max_tokens=16)
        assert torch.equal(alone.answers[0], together.answers[row])


@torch.no_grad()
def test_log_likelihood_of_a_step_is_that_of_its_decisions() -> None:
    """Two slots, one step: the surer slot has to commit, the other one commits or stays."""
    denoiser = peaked_denoiser()
    settings = RolloutSettings(block_size=2, tau=0.6, tau_low=0.0, temperature=1.0, commit=Commit.SAMPLED)
    prompt = random_prompts(1)
    logits = block_logits(denoiser, prompt, torch.full((1, 2), denoiser.mask_id))[0]
    probabilities = logits.softmax(-1)
    best = probabilities.amax(-1)
    first = int(best.argmax())  # forced
    stay = 1 - commit_probability(best, 0.6)[1 - first]
    seen: dict[bool, int] = {True: 0, False: 0}
    for seed in range(40):
        block = denoise_block(denoiser, prompt, settings, torch.Generator().manual_seed(seed))
        found = float(step_log_likelihoods(denoiser, [block], settings)[0][0, 0])
        tokens, both = block.states[0, 1], bool(block.commits[0, 0].all())
        wanted = float(probabilities[first, tokens[first]].log())
        other = 1 - first
        wanted += (
            float(probabilities[other, tokens[other]].log() + commit_probability(best, 0.6)[other].log())
            if both
            else float(stay.log())
        )
        assert found == pytest.approx(wanted, abs=1e-4)
        seen[both] += 1
    assert min(seen.values()) > 0


def test_commit_probability_is_even_at_tau_and_rises() -> None:
    chances = commit_probability(torch.tensor([0.1, 0.5, 0.9, 0.99, 1.0]), 0.9)
    assert float(chances[2]) == pytest.approx(0.5) and (chances.diff() > 0).all() and float(chances[-1]) == 1


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="block_size 0"):
        RolloutSettings(block_size=0)
    with pytest.raises(ConfigError, match="tau is 1"):
        RolloutSettings(block_size=4, tau=1.0)
