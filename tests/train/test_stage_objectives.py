"""Mask and edit stage: noise apart from the batch, eq. 5 and 6 as computed by hand, a checkpoint that is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_stages import CPU, stage_config

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.diffusion.losses import token_losses
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import DrafterKind, LogitAlignment
from train.config import ModelSettings, NoiseConfig
from train.data.samples import Sample
from train.objectives import edit_stage, mask_stage
from train.objectives.block_rows import BlockRows
from train.objectives.corruption import NoisyAnswers, corrupt_samples, make_schedule
from train.objectives.denoising import DenoisingObjective
from train.objectives.evaluation import evaluate_repairs, matches
from train.objectives.starting_point import make_starting_point


def build(name: str = "mask_stage", **changes) -> DenoisingObjective:
    module = {"mask_stage": mask_stage, "edit_stage": edit_stage}[name]
    _, objective, _ = module.build(stage_config(name, **changes), CPU)
    assert isinstance(objective, DenoisingObjective)
    return objective


def rows_of(noisy: NoisyAnswers) -> dict[str, list[list[int]]]:
    """Noise by sample id, cut to the columns that count."""
    found = {}
    for i, name in enumerate(noisy.ids):
        counted = noisy.partition.start_of[i] < noisy.batch.num_answer[i]
        parts = (noisy.masked, noisy.is_masked, noisy.weight, noisy.edited, noisy.partition.start_of)
        found[name] = [part[i][counted].tolist() for part in parts]
    return found


def test_a_batch_is_a_pure_function_of_the_step() -> None:
    first, again = (build("edit_stage").draw(3, 0, 1) for _ in range(2))
    assert rows_of(first) == rows_of(again)
    assert rows_of(first) != rows_of(build("edit_stage").draw(4, 0, 1))


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_ranks_together_are_the_batch_of_one(world_size: int) -> None:
    objective = build("edit_stage")
    whole = rows_of(objective.draw(2, 0, 1))
    parts: dict[str, list[list[int]]] = {}
    for rank in range(world_size):
        parts |= rows_of(objective.draw(2, rank, world_size))
    assert parts == whole and len(whole) == 6


def test_every_block_has_a_mask_and_times_are_spread() -> None:
    objective = build()
    samples = [objective.train.sample(i) for i in range(64)]
    noisy = corrupt_samples(
        samples,
        objective.config.noise,
        mask_id=objective.start.mask_id,
        pad_id=objective.pad_id,
        key=(0,),
        numbers=range(64),
        num_global=64,
    )
    rates = []
    for i in range(64):
        for start in set(noisy.partition.start_of[i].tolist()):
            block = noisy.partition.start_of[i] == start
            if start < int(noisy.batch.num_answer[i]):
                assert noisy.is_masked[i][block].any()
                rates.append(float(noisy.is_masked[i][block].float().mean()))
    rates = torch.tensor(rates)
    # gamma(t) = max(t, 1/B) for t even in [0, 1] has the mean 1/2 + 1/(2 B^2): 1/64 on average for B from 4 to 8.
    assert abs(float(rates.mean()) - (0.5 + 1 / 64)) < 0.05 and float(rates.std()) > 0.2


@pytest.mark.parametrize("name", ["mask_stage", "edit_stage"])
def test_loss_is_eq_5_or_eq_6(name: str) -> None:
    objective = build(name)
    model, noisy = objective.start.model, objective.draw(0, 0, 1)
    output = objective.loss(model, noisy, 0)
    other = noisy.edited if name == "edit_stage" else noisy.batch.answers
    rows = BlockRows(noisy.batch, noisy.partition, (noisy.masked, other))
    _, logits = rows.evaluate(model, LogitAlignment.SAME_POSITION)
    wanted, x_0 = 0.0, noisy.batch.answers
    losses = [token_losses(found, x_0, objective.start.mask_id) for found in logits]
    for i in range(len(x_0)):
        for column in range(x_0.shape[1]):
            if noisy.partition.start_of[i, column] < noisy.batch.num_answer[i]:
                wanted += float(losses[1][i, column].detach())
                if noisy.masked[i, column] == objective.start.mask_id:
                    wanted += float((losses[0][i, column] * noisy.weight[i, column]).detach())
    assert float(output.loss_sum.detach()) == pytest.approx(wanted, rel=1e-4)
    output.loss_sum.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_what_follows_an_answer_that_breaks_off_is_not_learned() -> None:
    """Neither masked nor counted, whatever the padding is; the padding of a finished one is learned."""
    objective = build("edit_stage")
    finished = objective.train.batch(0)
    broken = [
        replace(s, tokens=s.tokens[:-1], answer_changed=s.answer_changed[:-1], is_finished=False) for s in finished
    ]
    found = []
    for pad_id in (objective.pad_id, 65):
        objective.pad_id = pad_id
        noisy = objective.corrupt(broken, ("train", 0), range(len(broken)))
        behind = torch.arange(noisy.masked.shape[1]) >= noisy.batch.num_answer.unsqueeze(-1)
        assert not noisy.is_masked[behind].any()
        noisy = replace(noisy, edited=noisy.batch.answers)  # a deletion shifts padding into the answer
        found.append(objective.loss(objective.start.model, noisy, 0))
        assert found[-1].count == sum(len(s.tokens) - max(1, s.num_prompt) for s in broken)
    assert float(found[0].loss_sum.detach()) == pytest.approx(float(found[1].loss_sum.detach()), rel=1e-5)
    noisy = objective.corrupt(finished, ("train", 0), range(len(finished)))
    assert int(objective.loss(objective.start.model, noisy, 0).count) > found[0].count + len(finished)


def test_edits_stay_within_a_tenth_of_the_answer() -> None:
    objective = build("edit_stage")
    samples = [objective.train.sample(i) for i in range(48)]
    noisy = objective.corrupt(samples, ("train", 0), range(48))
    changed = noisy.changed.any(-1)
    assert changed.any() and not changed.all()


def test_weights_are_capped() -> None:
    noise = NoiseConfig(clip_block=False, weight_cap=3.0, block_min=4, block_max=8)
    noisy = build(noise=noise).draw(0, 0, 1)
    assert float(noisy.weight.max()) == 3.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_by_name(schedule: str) -> None:
    found = make_schedule(NoiseConfig(schedule=schedule, block_min=5), torch.tensor([[5], [10]]))
    assert found.gamma(torch.tensor([0.01])).flatten().tolist() == pytest.approx([1 / 5, 1 / 10])


def test_every_number_of_masks_weighs_the_same_in_a_block_of_any_size() -> None:
    """The likelihood that eq. 5 bounds asks for every number of masks equally: k gamma'/gamma P(k) is 1 on average."""
    tokens, most = torch.arange(161) % 90 + 5, 16
    sample = Sample(
        tokens=tokens,
        num_prompt=1,
        kind="document",
        answer_changed=torch.ones(160, dtype=torch.bool),
        original=tokens[:0],
        id="a",
    )
    noisy = corrupt_samples(
        [sample] * 600, NoiseConfig(block_min=4, block_max=most), mask_id=200, pad_id=0, key=(0,), numbers=range(600),
        num_global=600,
    )  # fmt: skip
    sizes = noisy.partition.sizes
    num_blocks = sizes.shape[1]

    def per_block(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(600, num_blocks).scatter_add(1, noisy.partition.block_of, values.float())

    masks, weight = per_block(noisy.is_masked), per_block(noisy.weight * noisy.is_masked)
    is_large = (sizes == most) & (noisy.partition.starts + most <= 160)
    assert int(is_large.sum()) > 500
    found = [float(weight[is_large & (masks == k)].sum() / is_large.sum()) for k in range(1, most + 1)]
    assert min(found) > 0.75 and max(found) < 1.6, found
    assert abs(sum(found) / most - 1) < 0.1


def test_a_saved_model_is_served_and_trained_on(tmp_path: Path) -> None:
    model, _, save = mask_stage.build(stage_config(), CPU)
    save(tmp_path / "checkpoint")
    loaded = load_checkpoint(str(tmp_path / "checkpoint"), dtype=torch.float32, device=CPU)
    contract = loaded.diffusion_config
    assert contract.drafter is DrafterKind.MODEL and contract.block_size == 8
    assert contract.mask_token_id == loaded.model_config.vocab_size - 1
    config = stage_config("edit_stage")
    start = make_starting_point(replace(config, model=replace(config.model, base=str(tmp_path / "checkpoint"))), CPU)
    for (name, a), (_, b) in zip(model.named_parameters(), start.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    with torch.no_grad():
        next(start.model.parameters()).add_(1)  # its own memory, not the mapped file
    again = load_checkpoint(str(tmp_path / "checkpoint"), dtype=torch.float32, device=CPU)
    assert torch.equal(again.model.embed_tokens.weight, model.get_parameter("embed_tokens.weight"))


def test_figures_of_an_untrained_model() -> None:
    objective = build("edit_stage")
    figures = objective.evaluate(objective.start.model, 0)
    assert figures["exact_match"] == 0 and figures["steps"] >= 1 and figures["accuracy"] < 0.2
    samples = objective.held_out.batch(0)
    denoiser = objective.denoiser(objective.start.model)
    for sample in samples:
        answer = sample.tokens[sample.num_prompt :]
        assert matches(sample, answer, objective.start.tokenizer, denoiser)
        assert not matches(sample, answer[1:], objective.start.tokenizer, denoiser)
    repairs = evaluate_repairs(denoiser, samples, objective.pad_id, torch.Generator().manual_seed(0))
    # Blocks of 8: one wrong token each.
    assert repairs["num_wrong"] == sum(-(-(len(s.tokens) - s.num_prompt) // 8) for s in samples)


def test_bad_settings_are_refused() -> None:
    config = stage_config()
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        make_starting_point(replace(config, data=replace(config.data, source="corpus", corpus="x")), CPU)
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        make_starting_point(replace(config, model=ModelSettings(prompt_format="plain/1")), CPU)
