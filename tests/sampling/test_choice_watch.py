"""Watching changes nothing, and what a watch says of a token is what the model gave it."""

from __future__ import annotations

import random

import pytest
import torch
from helpers.tiny_models import VOCAB_SIZE, tiny_denoiser, tiny_tokenizer, tiny_transformer

from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind, LogitAlignment
from diffusion_core.model.masks import causal
from diffusion_core.requests import DecodingParams, Policy, SamplingParams
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.choice_watch import ChoiceWatch
from diffusion_core.sampling.drafts import LookupDraft
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.policy import Step
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

TOKENIZER = tiny_tokenizer()
NUM_TOKENS = 24
DRAW = random.Random(5)
PROMPT = [DRAW.randrange(256) for _ in range(40)] * 2


def decode(
    denoiser: Denoiser, policy: Policy, watch: ChoiceWatch | None, temperature: float = 0.0
) -> tuple[DecodingSequence, list[tuple[Step, list[float | None], list[tuple[int | None, float | None]]]]]:
    """The sequence, and what the watch said after every forward."""
    cache = SequenceCache.create(denoiser, len(PROMPT) + NUM_TOKENS)
    sequence = DecodingSequence(denoiser, list(PROMPT), cache, num_prompt=len(PROMPT))
    task = DecodingTask(
        max_tokens=NUM_TOKENS,
        decoding=DecodingParams(policy=policy, tau=0.2),
        sampling=SamplingParams(temperature=temperature, seed=3),
    )
    seen = []
    for progress in BlockDecoder(denoiser, TOKENIZER, sequence, task, [LookupDraft(PROMPT)], watch=watch).run():
        if watch is not None and (step := progress.step) is not None:
            end = len(sequence.tokens)
            judged = watch.judged(end - len(step.accepted), step.accepted)
            seen.append((step, judged, watch.drafted(end, step.slots or step.draft)))
        if watch is not None:
            watch.forget()
    return sequence, seen


CASES = [
    (Policy.AUTOREGRESSIVE, DrafterKind.NONE, 0.0),
    (Policy.VERIFIED, DrafterKind.NONE, 0.0),
    (Policy.VERIFIED, DrafterKind.GATED_ADAPTER, 0.0),
    (Policy.VERIFIED, DrafterKind.GATED_ADAPTER, 0.8),
    (Policy.VERIFIED, DrafterKind.DRAFT_HEAD, 0.0),
    (Policy.CONFIDENCE, DrafterKind.GATED_ADAPTER, 0.0),
    (Policy.CONFIDENCE, DrafterKind.GATED_ADAPTER, 0.8),
    (Policy.FIXED, DrafterKind.GATED_ADAPTER, 0.0),
]


@pytest.mark.parametrize(("policy", "drafter", "temperature"), CASES)
def test_a_watched_answer_is_the_same_in_as_many_forwards(
    policy: Policy, drafter: DrafterKind, temperature: float
) -> None:
    denoiser = tiny_denoiser(drafter=drafter)
    alone, _ = decode(denoiser, policy, None, temperature)
    watched, seen = decode(denoiser, policy, ChoiceWatch(), temperature)
    assert (watched.answer, watched.num_forwards) == (alone.answer, alone.num_forwards)
    assert [token for step, _, _ in seen for token in step.accepted] == watched.answer
    assert len(seen) == watched.num_forwards


@pytest.mark.parametrize("policy", [Policy.AUTOREGRESSIVE, Policy.VERIFIED])
def test_the_confidence_of_a_settled_token_is_its_probability(policy: Policy) -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    sequence, seen = decode(denoiser, policy, ChoiceWatch())
    ids = torch.tensor([sequence.tokens])
    model = denoiser.model
    with torch.inference_mode():
        logits = model.logits(model(ids, torch.arange(ids.shape[1])[None], causal(ids.shape[1])))[0]
    rows = logits.softmax(-1)[len(PROMPT) - 1 : -1]
    expected = rows.gather(-1, torch.tensor(sequence.answer)[:, None])[:, 0]
    said = [p for _, judged, _ in seen for p in judged]
    assert None not in said
    torch.testing.assert_close(torch.tensor(said), expected, atol=1e-4, rtol=1e-3)


def test_masked_slots_say_what_the_model_leans_to() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    _, seen = decode(denoiser, Policy.FIXED, ChoiceWatch())
    step, _, slots = seen[0]
    masked = [at for at, token in enumerate(step.slots) if token is None]
    assert 0 < len(masked) < len(step.slots)
    for at in masked:
        token, sure = slots[at]
        assert token is not None
        assert sure is not None and 0 < sure < 1
    # One token a step commits, and it is the one that the model was surest of.
    (committed,) = [at for at in range(len(slots)) if at not in masked]
    assert slots[committed][1] == max(sure for _, sure in slots if sure is not None)


def test_a_canvas_shows_its_masks() -> None:
    contract = DiffusionConfig(
        prompt_format="plain/1",
        attention=AttentionPattern.BIDIRECTIONAL,
        alignment=LogitAlignment.SAME_POSITION,
        mask_token_id=VOCAB_SIZE - 1,
        block_size=4,
    )
    denoiser = Denoiser(tiny_transformer(), contract)
    alone, _ = decode(denoiser, Policy.CONFIDENCE, None)
    watched, seen = decode(denoiser, Policy.CONFIDENCE, ChoiceWatch())
    assert watched.answer == alone.answer
    assert any(None in step.slots for step, _, _ in seen)
