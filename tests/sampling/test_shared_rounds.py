"""Sequences that share rounds of a GPU: each text is that of its own decoding, forwards and readings included.

Rounds are one kernel, whose source runs on the CPU where there is no GPU; so there are few tokens here.
"""

from __future__ import annotations

import random

import pytest
from helpers.tiny_models import VOCAB_SIZE
from helpers.whole_rounds import config_of, random_adapter, random_model, whole_forward
from sampling.test_together import NUM_TOKENS, Crowd, expected_answer, start

from diffusion_core.model.config import DiffusionConfig, DrafterKind
from diffusion_core.requests import Policy, SamplingParams
from diffusion_core.sampling.asking import RowsWanted
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.rounds import RoundShape


def whole_denoiser() -> Denoiser:
    model = random_model(config_of())
    adapter = random_adapter(model.config, 16)
    contract = DiffusionConfig(prompt_format="plain/1", drafter=DrafterKind.GATED_ADAPTER, mask_token_id=VOCAB_SIZE - 1)
    return Denoiser(model, contract, adapter, captured=whole_forward(model, adapter, blocks=2))


def short_prompts(seed: int, count: int) -> list[list[int]]:
    """So short that they are computed by rounds, whoever comes along."""
    draw = random.Random(seed)
    return [[draw.randrange(256) for _ in range(draw.randrange(2, 50))] for _ in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_verified_in_company_is_autoregressive_alone(temperature: float) -> None:
    denoiser, prompts = whole_denoiser(), short_prompts(1, 4)
    sampling = SamplingParams(temperature=temperature, seed=4)
    crowd, sequences = Crowd(piece=40), []
    for name, prompt in enumerate(prompts):
        task = {"sampling": sampling, "round_shape": [RoundShape.TWO_PASS, RoundShape.ALL_LENGTHS][name % 2]}
        sequence, decoding = start(denoiser, prompt, Policy.VERIFIED, **task)
        sequence.company = len(prompts)
        sequences.append(sequence)
        crowd.join(name, decoding)
    while crowd.names:
        crowd.forward()
    assert crowd.most_sequences == len(prompts)
    for prompt, sequence in zip(prompts, sequences, strict=True):
        assert sequence.fair_rows == 16, "of the 64 of a round"
        expected = expected_answer(denoiser, prompt, Policy.AUTOREGRESSIVE, sampling=sampling)
        assert sequence.answer[:NUM_TOKENS] == expected


def test_long_prompts_keep_forwards_of_their_own() -> None:
    denoiser = whole_denoiser()
    assert denoiser.can_share
    assert not denoiser.shares_prompts
    assert denoiser.most_shared_rows == 64
    sequence, decoding = start(denoiser, list(range(100)), Policy.VERIFIED)
    want = next(decoding)
    assert isinstance(want, RowsWanted)
    assert want.piece > 0
    assert not want.can_share
    assert want.first(60).can_share
    assert denoiser.mask_id == VOCAB_SIZE
    decoding.close()
    assert sequence.num_prompt == 100
