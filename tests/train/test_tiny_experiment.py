"""The whole recipe on a tiny model: what every stage has to show, and a checkpoint that the engine serves."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from diffusion_core.config import EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.requests import CompletionRequest, DecodingParams, Policy
from train.grammar import all_contexts, is_exact
from train.recipes import Stage
from train.tiny_experiment import STAGE_NAMES, control_stages, judge, run_experiment, seeded_stages


def figures(exact: float, steps: float, repaired: float) -> dict[str, float]:
    return {"exact_match": exact, "steps": steps, "repaired": repaired, "num_wrong": 100.0}


def test_claims_are_judged_by_the_figures() -> None:
    rows = [figures(0.9, 6, 0.02), figures(0.9, 6, 0.8), figures(0.95, 5, 0.7), figures(0.95, 3, 0.7)]
    found = judge(dict(zip(STAGE_NAMES, rows, strict=True)))
    assert found == {"no_stage_is_worse": True, "times_fewer_steps": 2.0, "times_more_repairs": pytest.approx(40)}
    rows[2] = figures(0.8, 5, 0.7)
    assert not judge(dict(zip(STAGE_NAMES, rows, strict=True)))["no_stage_is_worse"]


def test_controls_differ_from_their_stage_in_one_thing(tmp_path: Path) -> None:
    stages: list[Stage] = seeded_stages()
    assert [stage.name for stage in stages] == list(STAGE_NAMES)
    controls = control_stages(stages, tmp_path)
    order, policy = stages[2].config, stages[3].config
    plain, direct = controls["plain_steps"], controls["direct_length"]
    assert plain.objective == "edit_stage" and plain.budget == order.budget and plain.optim == order.optim
    assert "2-edit_stage" in plain.model.base and "3-order_distill" in direct.model.base
    assert direct.on_policy.length == "direct" and policy.on_policy.length == "surrogate"
    assert direct.optim == policy.optim and direct.budget == policy.budget


@pytest.mark.slow
async def test_the_whole_recipe(tmp_path: Path) -> None:
    found = run_experiment(tmp_path / "run", with_controls=False)
    stages = found["stages"]
    exact = [stages[name]["exact_match"] for name in STAGE_NAMES]
    assert exact[0] >= 0.95
    # Threads and processors change the last bits, and so the run: of five, one order stage lost 6 of 256 answers.
    assert all(later >= earlier - 0.04 for earlier, later in itertools.pairwise(exact))
    assert found["times_fewer_steps"] >= 1.5
    assert found["times_more_repairs"] >= 3
    engine = AsyncEngine(
        EngineConfig(model=str(tmp_path / "run" / "4-on_policy" / "checkpoint"), dtype="float32", drafter="none")
    )
    engine.start()
    try:
        exact, forwards = 0, 0
        contexts = all_contexts(is_held_out=True)[:20]
        for context in contexts:
            decoding = DecodingParams(policy=Policy.CONFIDENCE)
            result = await engine.complete(
                CompletionRequest(prefix=context.prefix, suffix=context.suffix, decoding=decoding, stop_at_scope=False)
            )
            exact += is_exact(result.text, context.middle("pqr"))
            forwards += result.num_forwards
        assert exact >= 19
        assert forwards / len(contexts) < stages["mask_stage"]["steps"]
    finally:
        await engine.aclose()
