"""What must be exactly equal to what (decoding.md section 6), on tiny random models in float32."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from helpers.tiny_models import SHAPES, tiny_denoiser, tiny_tokenizer

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, DrafterKind, LogitAlignment
from diffusion_core.model.masks import causal
from diffusion_core.requests import CanvasCache, DecodingParams, Policy, SamplingParams
from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.asking import run_alone
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.drafts import DraftSource, LookupDraft
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

TOKENIZER = tiny_tokenizer()
NUM_TOKENS = 24


def prompt_of(seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(256) for _ in range(draw.randrange(3, 60))]


def decode(
    denoiser: Denoiser,
    prompt: Sequence[int],
    policy: Policy,
    *,
    sources: Sequence[DraftSource] = (),
    cache: SequenceCache | None = None,
    shape: RoundShape = RoundShape.TWO_PASS,
    sampling: SamplingParams | None = None,
    cache_kind: CanvasCache = CanvasCache.AUTO,
    banned: tuple[int, ...] = (),
    rounds: RoundModel | None = None,
    **decoding: object,
) -> DecodingSequence:
    """The sequence after decoding ``NUM_TOKENS`` tokens."""
    cache = cache or SequenceCache.create(denoiser, len(prompt) + NUM_TOKENS)
    sequence = DecodingSequence(denoiser, list(prompt), cache, num_prompt=len(prompt))
    task = DecodingTask(
        max_tokens=NUM_TOKENS,
        decoding=DecodingParams(policy=policy, cache=cache_kind, **decoding),  # type: ignore[arg-type]
        sampling=sampling or SamplingParams(),
        round_shape=shape,
        banned_token_ids=banned,
    )
    for _ in BlockDecoder(denoiser, TOKENIZER, sequence, task, sources, rounds=rounds).run():
        pass
    return sequence


def answer(sequence: DecodingSequence) -> list[int]:
    return sequence.answer[:NUM_TOKENS]


def sources_for(kind: str, prompt: list[int], expected: list[int]) -> list[DraftSource]:
    """Draft sources from useless to perfect."""
    match kind:
        case "none":
            return []
        case "lookup":
            return [LookupDraft(prompt)]
        case "noise":
            draw = random.Random(len(prompt))
            return [AlignedDraft([draw.randrange(256) for _ in range(60)])]
        case "truth":
            return [AlignedDraft(expected)]
        case _:
            spoiled = list(expected)
            spoiled[4] = (spoiled[4] + 1) % 256
            del spoiled[9]
            spoiled.insert(13, 65)
            return [AlignedDraft(spoiled), LookupDraft(prompt)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.GATED_ADAPTER, DrafterKind.DRAFT_HEAD])
@pytest.mark.parametrize("source", ["none", "lookup", "noise", "truth", "edited"])
def test_verified_equals_autoregressive(shape: str, drafter: DrafterKind, source: str) -> None:
    plain = tiny_denoiser(shape)
    denoiser = tiny_denoiser(shape, drafter=drafter)
    for seed in range(8):
        prompt = prompt_of(seed)
        expected = decode(plain, prompt, Policy.AUTOREGRESSIVE)
        # The last one would have hundreds of slots behind a free draft: it takes the likeliest lengths.
        shapes = (*RoundShape, RoundShape.OPTIMISTIC, RoundShape.ALL_LENGTHS)
        for block_size, round_shape in zip((1, 2, 5, 8, 16), shapes, strict=True):
            drafts = sources_for(source, prompt, expected.answer)
            found = decode(denoiser, prompt, Policy.VERIFIED, sources=drafts, shape=round_shape, block_size=block_size)
            assert answer(found) == answer(expected)


@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.GATED_ADAPTER, DrafterKind.DRAFT_HEAD])
def test_drafts_and_slots_may_reach_beyond_the_models_last_position(drafter: DrafterKind) -> None:
    prompt = [*prompt_of(3), *prompt_of(4)]
    positions = len(prompt) + NUM_TOKENS
    expected = decode(tiny_denoiser(num_positions=positions), prompt, Policy.AUTOREGRESSIVE)
    assert answer(expected) == answer(decode(tiny_denoiser(), prompt, Policy.AUTOREGRESSIVE)), "a shorter table"
    denoiser = tiny_denoiser(drafter=drafter, num_positions=positions)
    for block_size, kind in ((1, "none"), (8, "edited"), (16, "truth"), (48, "noise")):
        drafts = sources_for(kind, prompt, [*expected.answer, *range(70)])
        found = decode(denoiser, prompt, Policy.VERIFIED, sources=drafts, block_size=block_size)
        assert answer(found) == answer(expected)
    if drafter is DrafterKind.GATED_ADAPTER:
        assert len(answer(decode(denoiser, prompt, Policy.CONFIDENCE, block_size=64))) == NUM_TOKENS


def test_good_drafts_save_forwards_and_bad_ones_cost_none() -> None:
    denoiser, prompt = tiny_denoiser(), prompt_of(1)
    expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE)
    assert expected.num_forwards == NUM_TOKENS
    counts = {
        kind: decode(denoiser, prompt, Policy.VERIFIED, sources=sources_for(kind, prompt, expected.answer)).num_forwards
        for kind in ("none", "noise", "truth", "edited")
    }
    assert counts["none"] == NUM_TOKENS - 1, "the prompt's own forward promises the first token"
    assert counts["noise"] <= NUM_TOKENS
    assert counts["truth"] <= 3
    assert counts["edited"] <= 8


def test_a_prompt_without_a_forward_of_its_own_promises_nothing() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    found = decode(denoiser, [7], Policy.VERIFIED, use_mask_drafts=False)
    assert answer(found) == answer(decode(denoiser, [7], Policy.AUTOREGRESSIVE))
    assert found.num_forwards == NUM_TOKENS


@pytest.mark.parametrize("drafter", [None, DrafterKind.GATED_ADAPTER, DrafterKind.DRAFT_HEAD])
@pytest.mark.parametrize("length", [2, 5, 257, 300])
def test_what_rides_at_the_end_of_the_prompt_is_not_kept(drafter: DrafterKind | None, length: int) -> None:
    denoiser = tiny_denoiser(drafter=drafter)
    prompt = (prompt_of(2) * 30)[:length]
    sequence = DecodingSequence(denoiser, prompt, SequenceCache.create(denoiser, length + 8), num_prompt=length)
    assert sum(sequence.prefill()) == sequence.cache.length == length - 1
    assert sequence.num_forwards == 0
    assert sequence.outlook is not None
    # Its first row is the prompt's last token: what a forward of its own would make of it.
    hidden = run_alone(sequence.forward(prompt[-1:], num_clean=1)).hidden
    torch.testing.assert_close(sequence.outlook[:1], hidden, atol=1e-5, rtol=1e-5)
    assert len(sequence.outlook) == 1 + (denoiser.contract.block_size if denoiser.has_slots else 0)


@pytest.mark.parametrize("shape", list(RoundShape))
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_head_of_the_drafters_own_changes_no_text(shape: RoundShape, temperature: float) -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    assert denoiser.adapter is not None
    denoiser.adapter.keep_to(torch.arange(5, 90))
    denoiser.adapter.bind(denoiser.model)
    sampling = SamplingParams(temperature=temperature, seed=3)
    for seed in range(8):
        prompt = prompt_of(seed)
        expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE, sampling=sampling)
        for source in ("none", "edited"):
            drafts = sources_for(source, prompt, expected.answer)
            found = decode(denoiser, prompt, Policy.VERIFIED, sampling=sampling, sources=drafts, shape=shape)
            assert answer(found) == answer(expected)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_sampled_text_is_the_same_under_verified(temperature: float, top_p: float) -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    different = set()
    for seed in range(6):
        sampling = SamplingParams(temperature=temperature, top_p=top_p, seed=seed)
        prompt = prompt_of(3)
        expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE, sampling=sampling)
        drafts = sources_for("edited", prompt, expected.answer)
        found = decode(denoiser, prompt, Policy.VERIFIED, sampling=sampling, sources=drafts, block_size=4)
        assert answer(found) == answer(expected)
        different.add(tuple(answer(expected)))
    assert len(different) > 1, "the seed must matter"


@pytest.mark.parametrize("shape", SHAPES)
def test_block_size_one_is_autoregressive(shape: str) -> None:
    denoiser = tiny_denoiser(shape, drafter=DrafterKind.GATED_ADAPTER)
    for seed in range(6):
        prompt = prompt_of(seed)
        expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE)
        for policy in (Policy.CONFIDENCE, Policy.FIXED):
            assert answer(decode(denoiser, prompt, policy, block_size=1, tau_low=0.0)) == answer(expected)


@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.DRAFT_HEAD])
def test_prefix_reuse_changes_nothing(drafter: DrafterKind) -> None:
    denoiser = tiny_denoiser(drafter=drafter)
    prompt = prompt_of(2) + prompt_of(4)
    expected = decode(denoiser, prompt, Policy.VERIFIED, block_size=4)
    for shared in (1, 5, len(prompt) - 1):
        other = prompt[:shared] + prompt_of(8)
        used = decode(denoiser, other, Policy.VERIFIED, block_size=4)
        used.cache.crop(shared)
        found = decode(denoiser, prompt, Policy.VERIFIED, cache=used.cache, block_size=4)
        assert answer(found) == answer(expected)
    copied = expected.cache.copy(3, 10)
    assert answer(decode(denoiser, prompt, Policy.VERIFIED, cache=copied, block_size=4)) == answer(expected)


PATTERNS = [
    (AttentionPattern.CAUSAL_CONTEXT, LogitAlignment.SHIFTED),
    (AttentionPattern.CAUSAL_CONTEXT, LogitAlignment.SAME_POSITION),
    (AttentionPattern.BLOCK_CAUSAL, LogitAlignment.SHIFTED),
    (AttentionPattern.BLOCK_CAUSAL, LogitAlignment.SAME_POSITION),
    (AttentionPattern.BIDIRECTIONAL, LogitAlignment.SHIFTED),
    (AttentionPattern.BIDIRECTIONAL, LogitAlignment.SAME_POSITION),
]


@pytest.mark.parametrize(("attention", "alignment"), PATTERNS)
@pytest.mark.parametrize("num_per_step", [1, 2, 4])
def test_parallel_decoding_equals_uncached_full_forwards(
    attention: AttentionPattern, alignment: LogitAlignment, num_per_step: int
) -> None:
    """`fixed` against a plain loop that recomputes the whole sequence at every step."""
    denoiser = tiny_denoiser(drafter=DrafterKind.MODEL, attention=attention, alignment=alignment)
    for seed in range(4):
        prompt = prompt_of(seed)
        found = decode(
            denoiser, prompt, Policy.FIXED, num_per_step=num_per_step, block_size=4, cache_kind=CanvasCache.NONE
        )
        assert answer(found) == fixed_reference(denoiser, prompt, num_per_step)[:NUM_TOKENS]


def fixed_reference(denoiser: Denoiser, prompt: list[int], num_per_step: int) -> list[int]:
    """Denoise blocks of four by recomputing everything: no cache, no pending tokens, masks written out by hand.

    A model that is denoised as a whole sees the masks of all later blocks as well.
    """
    contract, mask_id, size = denoiser.contract, denoiser.mask_id, 4
    assert mask_id is not None
    tokens = list(prompt)
    while len(tokens) < len(prompt) + NUM_TOKENS:
        n = len(tokens)
        start = n // size * size if contract.attention is AttentionPattern.BLOCK_CAUSAL else n
        end = start + size
        if contract.attention is AttentionPattern.BIDIRECTIONAL:
            end = len(prompt) + NUM_TOKENS
        canvas = tokens + [mask_id] * (end - n)
        places = torch.arange(len(canvas))
        match contract.attention:
            case AttentionPattern.BIDIRECTIONAL:
                visible = torch.ones(len(canvas), len(canvas), dtype=torch.bool)
            case AttentionPattern.BLOCK_CAUSAL:
                visible = places[:, None] // size >= places[None, :] // size
            case _:
                visible = causal(len(canvas))
                visible[start:, start:] = True
        while mask_id in canvas[: start + size]:
            with torch.no_grad():
                hidden = denoiser.model(torch.tensor([canvas]), places[None], visible)[0]
                logits = denoiser.model.logits(hidden)
            logits[:, mask_id] = float("-inf")
            if contract.alignment is LogitAlignment.SHIFTED:
                logits = torch.cat((logits[:1], logits[:-1]))
            masked = [i for i, t in enumerate(canvas[: start + size]) if t == mask_id]
            best = logits.softmax(-1).max(-1)
            for i in sorted(masked, key=lambda i: -float(best.values[i]))[:num_per_step]:
                canvas[i] = int(best.indices[i])
        tokens = canvas[: start + size]
    return tokens[len(prompt) :]


def test_confidence_never_needs_more_steps_than_tokens_and_ends() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    for tau, tau_low in ((0.01, 0.0), (0.5, 0.3), (1.0, 0.9)):
        found = decode(denoiser, prompt_of(5), Policy.CONFIDENCE, block_size=8, tau=tau, tau_low=tau_low)
        assert len(found.answer) >= NUM_TOKENS
        assert denoiser.mask_id not in found.answer
        assert found.num_forwards <= 3 * len(found.answer)
    fast = decode(denoiser, prompt_of(5), Policy.CONFIDENCE, block_size=8, tau=0.01, tau_low=0.0)
    assert fast.num_forwards == len(fast.answer) // 8


def test_policies_that_a_checkpoint_cannot_run_are_refused() -> None:
    prompt = prompt_of(1)
    with pytest.raises(CheckpointError, match="not trained for them"):
        decode(tiny_denoiser(), prompt, Policy.CONFIDENCE)
    with pytest.raises(CheckpointError, match="not trained for them"):
        decode(tiny_denoiser(), prompt, Policy.FIXED)
    bidirectional = tiny_denoiser(drafter=DrafterKind.MODEL, attention=AttentionPattern.BIDIRECTIONAL)
    for policy in (Policy.VERIFIED, Policy.AUTOREGRESSIVE):
        with pytest.raises(CheckpointError, match="clean path is causal"):
            decode(bidirectional, prompt, policy)
    with pytest.raises(CheckpointError, match="draft head only drafts"):
        decode(tiny_denoiser(drafter=DrafterKind.DRAFT_HEAD), prompt, Policy.CONFIDENCE)


@pytest.mark.parametrize("drafter", list(DrafterKind))
def test_stopping_at_any_forward_leaves_the_cache_usable(drafter: DrafterKind) -> None:
    denoiser, prompt = tiny_denoiser(drafter=drafter), prompt_of(7) + prompt_of(9)
    expected = decode(denoiser, prompt, Policy.VERIFIED, block_size=4)
    for stop_after in range(0, 12, 2):
        cache = SequenceCache.create(denoiser, len(prompt))
        sequence = DecodingSequence(denoiser, list(prompt), cache, num_prompt=len(prompt))
        task = DecodingTask(max_tokens=NUM_TOKENS, decoding=DecodingParams(policy=Policy.VERIFIED, block_size=4))
        run = BlockDecoder(denoiser, TOKENIZER, sequence, task).run()
        for _ in range(stop_after):
            next(run, None)
        run.close()
        cache.crop(min(cache.length, len(prompt) - 1))
        found = decode(denoiser, prompt, Policy.VERIFIED, cache=cache, block_size=4)
        assert answer(found) == answer(expected)
