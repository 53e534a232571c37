"""The decoder writes the tokens of each family's own sampler under the same settings, in fewer forwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers.family_fixtures import load_fixture, read_golden

from diffusion_core.checkpoints.load import Checkpoint
from diffusion_core.engine.loaded_model import build_captured
from diffusion_core.model.captured import CapturedForward
from diffusion_core.model.config import CommitForward
from diffusion_core.requests import DecodingParams, Policy
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

SAME_POSITION = ("stable-diffcoder", "sdar", "a2d-qwen2-bd3lm", "a2d-qwen3-bd3lm")
CASES = [(family, i) for family in (*SAME_POSITION, "fast-dllm-v2") for i in range(len(read_golden(family).answers))]


def settings_of(answer: dict[str, Any]) -> DecodingParams:
    """The reference's settings as ours: static schedules commit a fixed number, thresholds whatever is sure."""
    given = answer["settings"]
    if given["threshold"] is None:
        return DecodingParams(policy=Policy.FIXED, num_per_step=given["block"] // given["steps"])
    return DecodingParams(policy=Policy.CONFIDENCE, tau=given["threshold"], tau_low=0.0)


def decode(
    checkpoint: Checkpoint,
    answer: dict[str, Any],
    count: int,
    commit: CommitForward | None = None,
    captured: CapturedForward | None = None,
) -> DecodingSequence:
    """Decode ``count`` tokens behind the answer's prompt."""
    contract = checkpoint.diffusion_config
    denoiser = Denoiser(checkpoint.model, replace(contract, commit=commit or contract.commit), captured=captured)
    prompt = list(answer["prompt"])
    cache = SequenceCache.create(denoiser, len(prompt) + count)
    sequence = DecodingSequence(denoiser, list(prompt), cache, num_prompt=len(prompt))
    stop = answer["settings"].get("eos", -1)
    task = DecodingTask(max_tokens=count, decoding=settings_of(answer), stop_token_ids=frozenset({stop}))
    for _ in BlockDecoder(denoiser, checkpoint.tokenizer, sequence, task).run():
        pass
    return sequence


def expected_answer(answer: dict[str, Any]) -> list[int]:
    """What the reference wrote in whole blocks: its last block is shorter where the prompt had a tail."""
    block, num_prompt = answer["settings"]["block"], len(answer["prompt"])
    tokens = answer["tokens"][: len(answer["tokens"]) // block * block]
    return tokens[num_prompt:]


@pytest.mark.parametrize(("family", "number"), CASES)
def test_tokens_equal_those_of_the_reference_sampler(family: str, number: int) -> None:
    checkpoint, answer = load_fixture(family), read_golden(family).answers[number]
    expected = expected_answer(answer)
    found = decode(checkpoint, answer, len(expected)).answer
    assert found[: len(expected)] == expected[: len(found)]
    assert len(found) >= len(expected) or found[-1] == answer["settings"].get("eos")


@pytest.mark.parametrize(("family", "number"), CASES[::2])
@pytest.mark.parametrize("capture", ["exact", "fast"])
def test_rounds_of_static_shape_give_the_same_tokens(family: str, number: int, capture: str) -> None:
    """What a GPU captures as graphs."""
    checkpoint, answer = load_fixture(family), read_golden(family).answers[number]
    captured = build_captured(checkpoint.model, None, None, capture=capture, max_positions=256)
    assert captured is not None
    expected = expected_answer(answer)
    found = decode(checkpoint, answer, len(expected), captured=captured).answer
    assert found[: len(expected)] == expected[: len(found)]


@pytest.mark.parametrize("family", SAME_POSITION)
def test_a_merged_commit_gives_the_same_tokens_in_a_forward_less_per_block(family: str) -> None:
    """Static schedules: s + 1 forwards a block become s (checkpoints.md, section 8), and not a token changes."""
    checkpoint = load_fixture(family)
    for answer in read_golden(family).answers:
        given = answer["settings"]
        if given["threshold"] is not None or len(answer["prompt"]) % given["block"]:
            continue
        steps, count = given["steps"], len(expected_answer(answer))
        apart = decode(checkpoint, answer, count, CommitForward.APART)
        merged = decode(checkpoint, answer, count, CommitForward.MERGED)
        assert apart.answer == merged.answer
        blocks = len(merged.answer) // given["block"]
        if given.get("eos", 2) == 2 and blocks * given["block"] == len(merged.answer):
            assert merged.num_forwards == blocks * steps
            # Apart, the prompt's last block is committed first and the answer's last one not at all.
            assert apart.num_forwards == blocks * (steps + 1)
            if family in ("stable-diffcoder", "sdar"):
                assert answer["forwards"] == blocks * (steps + 1)
