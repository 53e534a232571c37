"""On-policy learning: baselines, credit, and gradients that make rewarded trajectories likelier and shorter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from helpers.tiny_stages import CPU, peaked_start, stage_config

from diffusion_core.errors import ConfigError
from diffusion_core.model.config import LogitAlignment
from train.objectives import on_policy
from train.objectives.denoising import DenoisingObjective
from train.objectives.on_policy import OnPolicy, leave_one_out, step_log_likelihoods
from train.objectives.sources import make_sources
from train.rollout import AnswerRollout
from train.verifier import Attempt, ExactVerifier


class Even:
    """Approves of answers whose first token is even."""

    def score(self, attempts: Sequence[Attempt]) -> torch.Tensor:
        return torch.tensor([float(int(attempt.tokens[0]) % 2 == 0) for attempt in attempts])


class Always:
    """Approves of everything."""

    def score(self, attempts: Sequence[Attempt]) -> torch.Tensor:
        return torch.ones(len(attempts))


def objective_with(verifier, **changes) -> OnPolicy:
    config = stage_config("on_policy")
    policy = replace(config.on_policy, **({"rollouts": 6, "mask_weight": 0.0, "max_steps": 6} | changes))
    config = replace(
        config, on_policy=policy, data=replace(config.data, sequences=4), model=replace(config.model, block_size=16)
    )
    start = peaked_start()
    start = replace(start, contract=replace(start.contract, block_size=16))
    start.model.requires_grad_(True)
    sources = make_sources(config, start.tokenizer, start.contract)
    return OnPolicy(config, DenoisingObjective(config, start, sources, with_edits=True), verifier)


@dataclass
class Capture:
    """Rollouts of the last step; random models hardly ever stop, so the end of the room counts as an end."""

    rollout: AnswerRollout | None = None


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Capture:
    plain, capture = on_policy.roll_out, Capture()

    def always_stopped(*arguments, **options):
        found = plain(*arguments, **options)
        capture.rollout = replace(found, has_stopped=torch.ones_like(found.has_stopped))
        return capture.rollout

    monkeypatch.setattr(on_policy, "roll_out", always_stopped)
    return capture


def likelihood(objective: OnPolicy, rollout: AnswerRollout) -> torch.Tensor:
    """log-probability of each whole trajectory under the model as it is now."""
    denoiser = objective.plain.denoiser(objective.plain.start.model)
    total = torch.zeros(len(rollout.answers))
    with torch.no_grad():
        found = step_log_likelihoods(denoiser, rollout.blocks, objective.settings(denoiser))
        for block, steps in zip(rollout.blocks, found, strict=True):
            total.index_add_(0, block.samples, steps.sum(-1))
    return total


def rise_after_a_step(objective: OnPolicy, captured: Capture) -> tuple[AnswerRollout, torch.Tensor]:
    """The rollouts of one training step, and by how much a small step made each of them likelier."""
    model = objective.plain.start.model
    output = objective.loss(model, objective.draw(0, 0, 1), 0)
    rollout = captured.rollout
    assert rollout is not None
    before = likelihood(objective, rollout)
    output.loss_sum.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.02 * parameter.grad / norm
    return rollout, likelihood(objective, rollout) - before


def centred(values: torch.Tensor, rollouts: int) -> torch.Tensor:
    """Values minus the mean over the rollouts of the same prompt."""
    groups = values.view(-1, rollouts)
    return (groups - groups.mean(-1, keepdim=True)).flatten()


def test_approved_trajectories_become_likelier(captured: Capture) -> None:
    rollout, rise = rise_after_a_step(objective_with(Even(), length="none"), captured)
    approved = torch.tensor([float(int(answer[0]) % 2 == 0) for answer in rollout.answers])
    assert 0 < approved.mean() < 1
    assert float((centred(approved, 6) * centred(rise, 6)).sum()) > 0
    assert rise[approved > 0].mean() > rise[approved == 0].mean()


@pytest.mark.parametrize("length", ["surrogate", "direct"])
def test_shorter_trajectories_become_likelier(captured: Capture, length: str) -> None:
    rollout, rise = rise_after_a_step(objective_with(Always(), length=length, max_steps=32), captured)
    steps = centred(rollout.num_steps.float(), 6)
    assert steps.abs().max() > 0
    assert float((steps * centred(rise, 6)).sum()) < 0


def test_an_answer_that_did_not_end_has_no_value() -> None:
    objective = objective_with(Always())
    batch = objective.draw(0, 0, 1)
    denoiser = objective.plain.denoiser(objective.plain.start.model)
    rollout = objective.roll_out(denoiser, batch.samples, batch)
    unfinished = replace(rollout, has_stopped=torch.tensor([True, False, True, False]))
    assert objective.judge(batch.samples, unfinished).tolist() == [1, 0, 1, 0]


def test_leave_one_out_is_the_mean_of_the_others() -> None:
    values = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 3.0], [5.0, 7.0]])
    groups = torch.tensor([0, 0, 0, 2])
    assert leave_one_out(values, groups).tolist() == [[4.0, 1.5], [3.5, 1.5], [1.5, 0.0], [5.0, 7.0]]


@pytest.mark.usefixtures("captured")
def test_equal_rewards_teach_nothing() -> None:
    objective = objective_with(Always(), length="none")
    output = objective.loss(objective.plain.start.model, objective.draw(0, 0, 1), 0)
    assert float(output.loss_sum.detach()) == 0


def test_the_moving_baseline_is_remembered() -> None:
    objective = objective_with(Even(), rollouts=1, baseline_decay=0.5)
    assert objective._value_baseline(torch.tensor([1.0, 0.0])).tolist() == [0.5, 0.5]
    assert objective._value_baseline(torch.tensor([1.0, 1.0])).tolist() == [0.5, 0.5]
    other = objective_with(Even(), rollouts=1, baseline_decay=0.5)
    other.load_state(objective.state())
    assert other._value_baseline(torch.tensor([0.0, 0.0])).tolist() == [0.75, 0.75]


def test_a_step_can_be_repeated_and_keeps_some_of_the_mask_objective() -> None:
    outputs = []
    for weight in (0.0, 0.0, 0.5):
        objective = objective_with(Even(), mask_weight=weight)
        outputs.append(objective.loss(objective.plain.start.model, objective.draw(1, 0, 1), 1))
    sums = [float(output.loss_sum.detach()) for output in outputs]
    assert sums[0] == sums[1] and sums[2] > sums[0]
    outputs[2].loss_sum.backward()


def test_built_from_a_configuration(tmp_path) -> None:
    _, objective, _ = on_policy.build(stage_config("on_policy"), CPU)
    assert isinstance(objective, OnPolicy) and isinstance(objective._verifier, ExactVerifier)
    config = stage_config("on_policy")
    wanted = replace(config, on_policy=replace(config.on_policy, verifier="likelihood"))
    with pytest.raises(ConfigError, match="needs a causal clean path"):
        on_policy.build(wanted, CPU)
    assert peaked_start(alignment=LogitAlignment.SHIFTED).contract.has_causal_clean_path
