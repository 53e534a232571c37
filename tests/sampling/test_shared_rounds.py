"""Sequences that share rounds of a GPU: each text is that of its own decoding, forwards and readings included.

Rounds are one kernel, whose source runs on the CPU where there is no GPU; so there are few tokens here.
"""

from __future__ import annotations

import pytest
from helpers.tiny_models import VOCAB_SIZE
from helpers.whole_rounds import config_of, random_adapter, random_model, whole_forward
from sampling.test_together import NUM_TOKENS, decode_together, expected_answer, prompts_of, start

from diffusion_core.model.config import DiffusionConfig, DrafterKind
from diffusion_core.requests import Policy, SamplingParams
from diffusion_core.sampling.asking import RowsWanted
from diffusion_core.sampling.block_decoder import Progress
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.rounds import RoundShape


def whole_denoiser() -> Denoiser:
    model = random_model(config_of())
    adapter = random_adapter(model.config, 16)
    contract = DiffusionConfig(prompt_format="plain/1", drafter=DrafterKind.GATED_ADAPTER, mask_token_id=VOCAB_SIZE - 1)
    return Denoiser(model, contract, adapter, captured=whole_forward(model, adapter, blocks=2))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_verified_in_company_is_autoregressive_alone(temperature: float) -> None:
    denoiser, prompts = whole_denoiser(), prompts_of(1, 4)
    sampling = SamplingParams(temperature=temperature, seed=4)
    shapes = [RoundShape.TWO_PASS, RoundShape.ALL_LENGTHS] * 2
    tasks = [{"sampling": sampling, "round_shape": shape} for shape in shapes]
    sequences = decode_together(denoiser, prompts, tasks, piece=40)
    for prompt, sequence in zip(prompts, sequences, strict=True):
        assert sequence.fair_rows == 16, "of the 64 of a round"
        expected = expected_answer(denoiser, prompt, Policy.AUTOREGRESSIVE, sampling=sampling)
        assert sequence.answer[:NUM_TOKENS] == expected


@pytest.mark.parametrize("length", [2, 59, 60, 61, 64, 65, 66, 124, 125, 140])
def test_a_prompt_is_computed_by_rounds(length: int) -> None:
    """Its last rows have the next token and slots beside them, which must fit in the round too."""
    denoiser = whole_denoiser()
    sequence, decoding = start(denoiser, list(range(length)), Policy.VERIFIED)
    want, sizes = next(decoding), []
    while sequence.cache.length < length - 1:
        assert isinstance(want, RowsWanted)
        assert want.piece > 0
        assert len(want.tokens) <= 64
        assert want.can_share
        sizes.append(len(want.tokens))
        want = decoding.send(want.alone())
        while isinstance(want, Progress):
            want = decoding.send(None)
    assert sequence.outlook is not None
    assert sum(sizes) == length + denoiser.contract.block_size
    decoding.close()
