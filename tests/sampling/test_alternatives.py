"""Alternatives: recorded probabilities are the model's, and what follows a departure is what the model says there."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from helpers.tiny_models import tiny_denoiser, tiny_tokenizer

from diffusion_core.engine.alternatives import Alternatives
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.prefix_cache import PrefixCache
from diffusion_core.model.config import AttentionPattern, DrafterKind
from diffusion_core.requests import DecodingParams, Policy, SamplingParams
from diffusion_core.sampling.asking import progress_of
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.departures import DepartureRecorder
from diffusion_core.sampling.drafts import LookupDraft
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

TOKENIZER = tiny_tokenizer()
PROMPT = [ord(character) for character in "abc = abc + abc\nabc ="]
NUM_TOKENS = 12


def decode(
    denoiser: Denoiser, tokens: list[int], task: DecodingTask, recorder: DepartureRecorder | None = None
) -> tuple[DecodingSequence, BlockDecoder]:
    cache = SequenceCache.create(denoiser, len(PROMPT) + NUM_TOKENS + 96)
    sequence = DecodingSequence(denoiser, [*PROMPT, *tokens], cache, num_prompt=len(PROMPT))
    decoder = BlockDecoder(denoiser, TOKENIZER, sequence, task, [LookupDraft(PROMPT)], recorder=recorder)
    decoder.replay(tokens)
    for _ in decoder.run():
        pass
    return sequence, decoder


@pytest.mark.parametrize("policy", [Policy.AUTOREGRESSIVE, Policy.VERIFIED])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_departure_has_the_probability_that_the_model_gives_it(policy: Policy, temperature: float) -> None:
    denoiser, recorder = tiny_denoiser(), DepartureRecorder()
    task = DecodingTask(
        max_tokens=NUM_TOKENS,
        decoding=DecodingParams(policy=policy),
        sampling=SamplingParams(temperature=temperature, seed=3),
    )
    sequence, decoder = decode(denoiser, [], task, recorder)
    answer = decoder.kept_tokens()
    departures = recorder.ranked(len(PROMPT), answer)
    assert len(departures) > NUM_TOKENS
    assert [d.log_probability for d in departures] == sorted((d.log_probability for d in departures), reverse=True)
    cache = SequenceCache.create(denoiser, len(sequence.tokens) + 1)
    log_probabilities = denoiser.logits(denoiser.evaluate(cache.base, sequence.tokens)).log_softmax(-1)
    for departure in departures:
        tokens = [*answer[: departure.num_kept], departure.token]
        assert departure.token != answer[departure.num_kept]
        rows = log_probabilities[len(PROMPT) - 1 : len(PROMPT) - 1 + len(tokens)]
        expected = rows.gather(-1, torch.tensor(tokens).unsqueeze(-1)).sum()
        assert departure.log_probability == pytest.approx(float(expected), abs=1e-3)


def alternatives_of(denoiser: Denoiser, task: DecodingTask, recorder: DepartureRecorder | None, count: int) -> Any:
    sequence, decoder = decode(denoiser, [], task, recorder)
    model = LoadedModel(
        name="tiny", denoiser=denoiser, tokenizer=TOKENIZER, encoder=cast(Any, None),
        prefix_cache=PrefixCache(denoiser, 0), stop_token_ids=frozenset(), banned_token_ids=(),
    )  # fmt: skip
    found = Alternatives(model, sequence, decoder, task=task, recorder=recorder, count=count)
    answer = decoder.kept_tokens()
    for _ in progress_of(found.decode()):
        pass
    return found, decoder, answer


@pytest.mark.parametrize("policy", [Policy.AUTOREGRESSIVE, Policy.VERIFIED])
def test_what_follows_a_departure_is_what_a_fresh_start_gives(policy: Policy) -> None:
    denoiser, recorder = tiny_denoiser(), DepartureRecorder()
    task = DecodingTask(max_tokens=NUM_TOKENS, decoding=DecodingParams(policy=policy))
    found, decoder, answer = alternatives_of(denoiser, task, recorder, 6)
    expected: list[str] = []
    for departure in recorder.ranked(len(PROMPT), answer):
        text = decode(denoiser, [*answer[: departure.num_kept], departure.token], task)[1].answer.text
        if text.strip() and text.strip() not in {decoder.answer.text.strip(), *(t.strip() for t in expected)}:
            expected.append(text)
        if len(expected) == 6:
            break
    assert found.texts == expected


def test_a_model_that_denoises_blocks_is_asked_again_with_other_noise() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER, attention=AttentionPattern.BLOCK_CAUSAL)
    decoding = DecodingParams(policy=Policy.CONFIDENCE)
    task = DecodingTask(max_tokens=NUM_TOKENS, decoding=decoding)
    found, decoder, _ = alternatives_of(denoiser, task, None, 3)
    assert len({decoder.answer.text, *found.texts}) == 4
    sampling = SamplingParams(temperature=0.8, seed=1)
    again = DecodingTask(max_tokens=NUM_TOKENS, decoding=decoding, sampling=sampling)
    assert found.texts[0] == decode(denoiser, [], again)[1].answer.text


def test_an_answer_that_ended_by_a_token_may_go_on_instead() -> None:
    denoiser, recorder = tiny_denoiser(), DepartureRecorder()
    free = decode(denoiser, [], DecodingTask(max_tokens=NUM_TOKENS))[0].answer
    stop = free[4]
    task = DecodingTask(max_tokens=NUM_TOKENS, stop_token_ids=frozenset({stop}))
    _, decoder = decode(denoiser, [], task, recorder)
    kept = decoder.kept_tokens()
    assert kept[-1] == stop and len(kept) == free.index(stop) + 1
    assert any(departure.num_kept == len(kept) - 1 for departure in recorder.ranked(len(PROMPT), kept))
