"""All four objectives on a built corpus: documents, holes and edits, from random weights with a named tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_corpora import make_corpus, make_tokenizer
from helpers.tiny_stages import CPU, stage_config

from train.config import TrainConfig
from train.run import find_builder


@pytest.fixture(scope="module")
def corpus_config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("corpus")
    corpus, _ = make_corpus(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    config = stage_config()
    return replace(
        config,
        data=replace(
            config.data, source="corpus", corpus=str(corpus), sequences=4, max_tokens=192, held_out_sequences=2
        ),
        model=replace(config.model, tokenizer=str(folder)),
        order=replace(config.order, pool=2, keep=1, pool_sequences=2),
        on_policy=replace(config.on_policy, verifier="syntax", rollouts=2, max_steps=2),
    )


@pytest.mark.parametrize("objective", ["mask_stage", "edit_stage", "order_distill", "on_policy"])
def test_a_step_and_an_evaluation(corpus_config: TrainConfig, objective: str, tmp_path: Path) -> None:
    config = replace(corpus_config, objective=objective)
    if objective in ("order_distill", "on_policy"):
        # Rollouts of a random model never stop: short answers keep them short.
        config = replace(config, data=replace(config.data, mixture={"infill_line": 1.0}))
    model, built, save = find_builder(objective)(config, CPU)
    output = built.loss(model, built.draw(0, 0, 1), 0)
    assert torch.isfinite(output.loss_sum) and float(output.count) > 0
    output.loss_sum.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    if objective == "edit_stage":
        figures = built.evaluate(model, 0)
        assert 0 <= figures["accuracy"] < 0.2 and figures["exact_match"] == 0
    save(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "model.safetensors").is_file()


def test_documents_edits_and_holes_are_all_drawn(corpus_config: TrainConfig) -> None:
    mixture = {"document": 1.0, "infill_line": 1.0, "edit_synthetic": 1.0}
    # An edit's prompt alone is some hundreds of bytes.
    config = replace(corpus_config, data=replace(corpus_config.data, max_tokens=4000, mixture=mixture))
    _, built, _ = find_builder("edit_stage")(config, CPU)
    kinds = {name.split("/")[0] for step in range(12) for name in built.draw(step, 0, 1).ids}
    assert kinds == set(mixture)
