"""Tuning for edits on a built corpus: what is trained is what the engine merges, and a run goes on from a tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_corpora import make_corpus
from helpers.tiny_models import save_tiny_checkpoint
from helpers.tiny_stages import CPU, stage_config

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.errors import ConfigError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.masks import causal
from train.adaptation.drafter_objective import load_base
from train.config import TrainConfig
from train.run import find_builder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("tuning")
    corpus, _ = make_corpus(folder)
    base = save_tiny_checkpoint(folder / "base")
    made = stage_config()
    return replace(
        made,
        objective="tune_edits",
        data=replace(
            made.data, source="corpus", corpus=str(corpus), sequences=2, max_tokens=4000, held_out_sequences=2,
            mixture={"edit_synthetic": 1.0},
        ),
        model=replace(made.model, base=str(base)),
        adapt=replace(made.adapt, edit_rank=4, edit_alpha=8.0),
    )  # fmt: skip


def test_what_is_trained_is_what_is_merged(config: TrainConfig, tmp_path: Path) -> None:
    adapter, objective, save = find_builder("tune_edits")(config, CPU)
    assert isinstance(adapter, GatedAdapter)
    optimiser = torch.optim.Adam([p for p in adapter.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        output = objective.loss(adapter, objective.draw(0, 0, 1), 0)
        loss = output.loss_sum / output.count
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    save(tmp_path / "tuning")

    tokens = objective.draw(0, 0, 1).clean.tokens[:1, :80]  # type: ignore[attr-defined]
    positions = torch.arange(80).unsqueeze(0)
    plain = load_checkpoint(config.model.base, dtype=torch.float32, device=CPU).model
    tuned = load_checkpoint(config.model.base, dtype=torch.float32, device=CPU, tuning=tmp_path / "tuning").model
    with torch.no_grad():
        trained = plain.logits(plain(tokens, positions, causal(80), adapter=adapter, first_slot=0))
        merged = tuned.logits(tuned(tokens, positions, causal(80)))
        before = plain.logits(plain(tokens, positions, causal(80)))
    change = (trained - before).abs().max()
    # The file holds 8 bits of mantissa: near, and far nearer than the change itself.
    assert (merged - trained).abs().max() < 0.05 * change

    # A drafter learns against the tuned base, a further tuning goes on from it.
    named = replace(config, model=replace(config.model, tuning=str(tmp_path / "tuning")))
    base = load_base(named, CPU).model
    assert torch.equal(base.layers[0].mlp.down_proj.weight, tuned.layers[0].mlp.down_proj.weight)  # type: ignore[union-attr]
    again, objective, _ = find_builder("tune_edits")(named, CPU)
    output = objective.loss(again, objective.draw(0, 0, 1), 0)
    resumed = float((output.loss_sum / output.count).detach())
    assert resumed == pytest.approx(losses[-1], rel=0.1) and resumed < losses[0]
    with pytest.raises(ConfigError, match=r"adapt\.edit_\* ask for"):
        find_builder("tune_edits")(replace(named, adapt=replace(named.adapt, edit_rank=8)), CPU)


def test_a_rank_of_nothing_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"adapt\.edit_rank is 0"):
        find_builder("tune_edits")(replace(config, adapt=replace(config.adapt, edit_rank=0)), CPU)
