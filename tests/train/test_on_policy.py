"""On-policy learning: baselines, credit, and gradients that make rewarded trajectories likelier and shorter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from helpers.tiny_stages import CPU, peaked_start, stage_config

from diffusion_core.errors import ConfigError
from diffusion_core.model.config import LogitAlignment
from train.objectives import on_policy
from train.objectives.denoising import DenoisingObjective
from train.objectives.on_policy import OnPolicy, leave_one_out
from train.objectives.sources import make_sources
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
    policy = replace(config.on_policy, **({"rollouts": 6, "mask_weight": 0.0, "max_steps": 12} | changes))
    config = replace(config, on_policy=policy, data=replace(config.data, sequences=4))
    start = peaked_start()
    start.model.requires_grad_(True)
    sources = make_sources(config, start.tokenizer, start.contract)
    return OnPolicy(config, DenoisingObjective(config, start, sources, with_edits=True), verifier)


def train(objective: OnPolicy, steps: int, rate: float) -> list[dict[str, float]]:
    model = objective.plain.start.model
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    history = []
    for step in range(steps):
        # Always the same prompts: what is to be seen is the direction of the gradient.
        batch = replace(objective.draw(0, 0, 1), step=step)
        output = objective.loss(model, batch, step)
        (output.loss_sum / output.count).backward()
        optimiser.step()
        optimiser.zero_grad()
        history.append({name: float(a) / float(b) for name, (a, b) in output.metrics.items()})
    return history


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random models hardly ever stop; here the end of the room counts as an end."""
    plain = on_policy.roll_out

    def always_stopped(*arguments, **options):
        found = plain(*arguments, **options)
        return replace(found, has_stopped=torch.ones_like(found.has_stopped))

    monkeypatch.setattr(on_policy, "roll_out", always_stopped)


@pytest.mark.usefixtures("stopped")
def test_the_verifier_term_raises_approval() -> None:
    history = train(objective_with(Even(), length="none", verifier_weight=4.0), 14, 3e-3)
    first, last = (sum(h["verifier"] for h in part) / 3 for part in (history[:3], history[-3:]))
    assert last > first + 0.15


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("length", ["surrogate", "direct"])
def test_the_length_term_lowers_the_steps(length: str) -> None:
    history = train(objective_with(Always(), length=length), 14, 3e-3)
    first, last = (sum(h["steps_per_block"] for h in part) / 3 for part in (history[:3], history[-3:]))
    assert last < 0.85 * first


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


@pytest.mark.usefixtures("stopped")
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
