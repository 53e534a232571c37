"""Canvas decoding makes what the families' own samplers made, token for token: schedules, caches, infilling."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from helpers.family_fixtures import load_fixture
from helpers.golden import golden

from diffusion_core.model.config import Certainty
from diffusion_core.requests import CanvasCache, SamplingParams
from diffusion_core.sampling.asking import run_alone
from diffusion_core.sampling.canvas import BlockStart
from diffusion_core.sampling.canvas_policy import CanvasPolicy, CanvasSettings, PathPlanningPolicy
from diffusion_core.sampling.commit_rules import CommitRule, ScheduledRule, ThresholdRule, decaying, even, rounded
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.infill_length import GivenLength
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import DecodingPolicy
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

FAMILIES = ("dream", "llada", "coda", "open-dcoder", "a2d-qwen2-mdlm", "a2d-qwen3-mdlm")
CERTAINTIES = {
    "entropy": Certainty.ENTROPY, "topk_margin": Certainty.MARGIN, "maskgit_plus": Certainty.PROBABILITY,
    "low_confidence": Certainty.PROBABILITY,
}  # fmt: skip
CASES = [(family, name) for family in FAMILIES for name in golden(family).samples]


@cache
def denoiser(family: str) -> Denoiser:
    """The fixture's checkpoint, loaded as a user's would be."""
    checkpoint = load_fixture(family)
    return Denoiser(checkpoint.model, checkpoint.diffusion_config)


def policy_like(family: str, settings: dict[str, Any]) -> DecodingPolicy:
    """Our policy with the settings of a reference's run. Nothing is banned there."""
    chooser, length = TokenChooser(SamplingParams()), GivenLength(settings["max_new_tokens"])
    if settings["alg"] == "p2":
        return PathPlanningPolicy(chooser, length, steps=settings["steps"])
    block = settings.get("block_length", settings["max_new_tokens"])
    num_blocks = -(-settings["max_new_tokens"] // block)
    steps = -(-settings["steps"] // num_blocks)
    schedule = {"llada": even, "a2d-qwen2-mdlm": rounded, "a2d-qwen3-mdlm": rounded}.get(family, decaying)
    rule: CommitRule
    if settings.get("threshold") is not None:
        rule = ThresholdRule(settings["threshold"])
    else:
        rule = ScheduledRule(schedule(steps), CERTAINTIES[settings["alg"]])
    return CanvasPolicy(
        chooser,
        rule,
        length,
        CanvasSettings(
            block_length=block, cache=CanvasCache(settings.get("cache", "none")), block_start=BlockStart.FILL
        ),
    )


def decode(family: str, policy: DecodingPolicy, suffix: tuple[int, ...] = ()) -> DecodingSequence:
    model, prompt = denoiser(family), golden(family).prompt
    sequence = DecodingSequence(
        model, list(prompt), SequenceCache.create(model, 8), num_prompt=len(prompt), suffix=suffix
    )
    for _ in range(100):
        if run_alone(policy.step(sequence)).is_final:
            return sequence
    raise AssertionError("the answer never ends")


@pytest.mark.parametrize(("family", "name"), CASES)
def test_tokens_are_those_of_the_reference(family: str, name: str) -> None:
    wanted = golden(family).samples[name]
    suffix = tuple(golden(family).suffix) if wanted.get("suffix") else ()
    sequence = decode(family, policy_like(family, wanted), suffix)
    assert sequence.answer == wanted["tokens"]
    # LLaDA's caches count a forward of their own at each block's start, as ours do.
    if family == "llada" and "forwards" in wanted:
        assert sequence.num_forwards == wanted["forwards"]


def test_the_caches_and_rules_of_the_references_differ() -> None:
    """Else the comparison would show little."""
    llada, dream = golden("llada").samples, golden("dream").samples
    assert len({tuple(llada[name]["tokens"]) for name in ("none-None", "prefix-None", "dual-None")}) == 3
    assert len({tuple(sample["tokens"]) for sample in dream.values()}) >= 9
