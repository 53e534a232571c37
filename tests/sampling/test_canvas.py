"""Canvases: what caches change and what they do not, early ends, reopening, and how long a gap is made."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from helpers.tiny_models import VOCAB_SIZE, tiny_denoiser

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import AttentionPattern, Certainty, DrafterKind, LogitAlignment
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.masks import everything
from diffusion_core.requests import CanvasCache, Policy, SamplingParams
from diffusion_core.sampling.asking import run_alone
from diffusion_core.sampling.canvas import BlockStart, Canvas, CanvasForward
from diffusion_core.sampling.canvas_policy import CanvasPolicy, CanvasSettings, PathPlanningPolicy
from diffusion_core.sampling.commit_rules import ScheduledRule, ThresholdRule, constant, decaying, even, rounded
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.infill_length import GivenLength, LengthSearch, best_of, climb, length_bias
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import DecodingPolicy, resolve_policy
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

PROMPT, SUFFIX = [ord(c) for c in "def add(a, b):\n"], tuple(ord(c) for c in "\nend\n")
MASK = VOCAB_SIZE - 1
CACHES = (CanvasCache.PREFIX, CanvasCache.DUAL)
ALIGNMENTS = tuple(LogitAlignment)


def model_of(alignment: LogitAlignment, shape: str = "qwen2", seed: int = 0) -> Denoiser:
    return tiny_denoiser(
        shape, drafter=DrafterKind.MODEL, attention=AttentionPattern.BIDIRECTIONAL, alignment=alignment, seed=seed
    )


def sequence_of(model: Denoiser, prompt: list[int] = PROMPT, suffix: tuple[int, ...] = SUFFIX) -> DecodingSequence:
    return DecodingSequence(model, list(prompt), SequenceCache.create(model, 8), num_prompt=len(prompt), suffix=suffix)


def chooser(**changes: object) -> TokenChooser:
    return TokenChooser(SamplingParams(**changes), [MASK])  # type: ignore[arg-type]


def canvas_policy(
    num_tokens: int = 16, *, tau: float = 0.5, stops: frozenset[int] = frozenset(), **settings: object
) -> CanvasPolicy:
    chosen = CanvasSettings(**({"block_length": 8} | settings))  # type: ignore[arg-type]
    return CanvasPolicy(chooser(), ThresholdRule(tau), GivenLength(num_tokens), chosen, stops)


def decode(policy: DecodingPolicy, sequence: DecodingSequence) -> list[int]:
    for _ in range(200):
        before = len(sequence.tokens)
        step = run_alone(policy.step(sequence))
        assert sequence.tokens[before:] == step.accepted
        if step.is_final:
            return sequence.answer
    raise AssertionError("the answer never ends")


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("seed", range(4))
def test_keys_that_are_made_anew_at_every_forward_change_nothing(
    alignment: LogitAlignment, cache: CanvasCache, seed: int
) -> None:
    model = model_of(alignment, seed=seed)
    plain = sequence_of(model)
    wanted = decode(canvas_policy(), plain)
    cached = sequence_of(model)
    assert decode(canvas_policy(cache=cache, refresh_every=1), cached) == wanted
    assert cached.num_forwards == plain.num_forwards
    kept = sequence_of(model)
    decode(canvas_policy(cache=cache), kept)
    assert kept.cache.length > 0, "else nothing was kept"


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("cache", CACHES)
def test_the_logits_of_a_forward_that_keeps_keys_are_those_of_a_plain_one(
    alignment: LogitAlignment, cache: CanvasCache
) -> None:
    """The rows come in another order; who sees whom is the same. The next forward over the same tokens, too."""
    model = model_of(alignment)
    sequence = sequence_of(model)
    canvas = Canvas.around(sequence, 16)
    block = canvas.block_at(canvas.start + 4, 8)
    plain = run_alone(CanvasForward(sequence, CanvasCache.NONE).logits(canvas, block))
    keeping = CanvasForward(sequence, cache)
    torch.testing.assert_close(run_alone(keeping.logits(canvas, block)), plain, rtol=1e-4, atol=1e-4)
    assert not keeping.is_renewing
    torch.testing.assert_close(run_alone(keeping.logits(canvas, block)), plain, rtol=1e-4, atol=1e-4)
    canvas.tokens[block[3]] = 65
    stale = run_alone(keeping.logits(canvas, block))
    fresh = run_alone(CanvasForward(sequence, CanvasCache.NONE).logits(canvas, block))
    assert not torch.allclose(stale, fresh, rtol=1e-3, atol=1e-3), "kept keys do not know of the new token"
    keeping.renew()
    torch.testing.assert_close(run_alone(keeping.logits(canvas, block)), fresh, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_long_canvas_is_evaluated_like_a_short_one(alignment: LogitAlignment) -> None:
    """Beyond a decoding round's rows all rows share one line of the mask."""
    model = model_of(alignment)
    prompt = [32 + i % 90 for i in range(2 * MAX_DECODE_ROWS)]
    sequence = sequence_of(model, prompt)
    canvas = Canvas.around(sequence, 8)
    found = run_alone(CanvasForward(sequence, CanvasCache.NONE).logits(canvas, canvas.window))
    size = len(canvas.tokens)
    assert everything(size).shape == (1, size)
    with torch.inference_mode():
        hidden = model.model(
            torch.tensor([canvas.tokens]), torch.arange(size)[None], torch.ones(size, size, dtype=torch.bool)
        )[0]
    back = int(alignment is LogitAlignment.SHIFTED)
    expected = model.logits(hidden[canvas.start - back : canvas.stop - back])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("cache", CanvasCache)
@pytest.mark.parametrize("block_length", [1, 3, 8, 64])
def test_every_forward_commits_at_least_one_token(
    alignment: LogitAlignment, cache: CanvasCache, block_length: int
) -> None:
    sequence = sequence_of(model_of(alignment))
    answer = decode(canvas_policy(13, tau=1.0, cache=cache, block_length=block_length), sequence)
    assert len(answer) == 13
    assert MASK not in answer
    assert sequence.num_forwards <= 13


def test_the_first_token_of_a_block_needs_no_row_where_the_renewal_fills_it() -> None:
    model = model_of(LogitAlignment.SHIFTED)
    sequence = sequence_of(model)
    policy = canvas_policy(16, tau=1.0, cache=CanvasCache.DUAL, block_start=BlockStart.FILL)
    step = run_alone(policy.step(sequence))
    assert len(step.draft) == 1
    canvas = Canvas.around(sequence_of(model), 16)
    first = run_alone(
        CanvasForward(sequence_of(model), CanvasCache.NONE).logits(canvas, range(canvas.start, canvas.start + 1))
    )
    assert step.draft == chooser().choose(first, [canvas.start])


def test_an_answer_ends_where_its_end_is_settled() -> None:
    model = model_of(LogitAlignment.SAME_POSITION, seed=2)
    whole = decode(canvas_policy(16), sequence_of(model))
    stop = whole[5]
    at = whole.index(stop)
    sequence = sequence_of(model)
    early = decode(canvas_policy(16, stops=frozenset({stop})), sequence)
    assert early == whole[: at + 1]
    assert sequence.num_forwards < 16


def test_a_committed_token_that_became_unlikely_is_reopened() -> None:
    model = model_of(LogitAlignment.SAME_POSITION)
    steady, doubting = sequence_of(model), sequence_of(model)
    kept = decode(canvas_policy(16, tau=0.6, block_length=16), steady)
    changed = decode(canvas_policy(16, tau=0.6, tau_low=0.55, block_length=16), doubting)
    assert doubting.num_forwards > steady.num_forwards
    assert changed != kept


def test_path_planning_needs_as_many_steps_as_it_is_given_and_no_mask_stays() -> None:
    for steps in (1, 4, 16):
        sequence = sequence_of(model_of(LogitAlignment.SHIFTED))
        answer = decode(PathPlanningPolicy(chooser(), GivenLength(16), steps=steps), sequence)
        assert len(answer) == 16
        assert MASK not in answer
        assert sequence.num_forwards == steps


def test_a_canvas_of_shifted_logits_begins_with_a_clean_token() -> None:
    sequence = sequence_of(model_of(LogitAlignment.SHIFTED), [])
    with pytest.raises(ValueError, match="begins with a clean token"):
        decode(canvas_policy(4), sequence)


def test_sampling_is_a_function_of_the_seed() -> None:
    model = model_of(LogitAlignment.SAME_POSITION)

    def sample(seed: int) -> list[int]:
        policy = CanvasPolicy(
            chooser(temperature=1.0, seed=seed), ThresholdRule(0.5), GivenLength(16), CanvasSettings(block_length=8)
        )
        return decode(policy, sequence_of(model))

    assert sample(3) == sample(3)
    assert len({tuple(sample(seed)) for seed in range(4)}) > 1


def test_schedules_leave_nothing_and_no_step_empty() -> None:
    for num_masked in (1, 2, 7, 16, 31, 256):
        for steps in (1, 3, 16, 300):
            for made in (even(steps), rounded(steps), decaying(steps), constant(steps)):
                counts = made(num_masked, 0)
                assert sum(counts) >= num_masked
                assert min(counts) >= 1
            for exact in (even(steps), rounded(steps), decaying(steps)):
                assert sum(exact(num_masked, 0)) == num_masked


def test_certainty_ranks_positions_by_what_it_says() -> None:
    #                  sure         two alike        flat
    logits = torch.tensor([[9.0, 0, 0, 0], [5.0, 5.0, 0, 0], [1.0, 0.9, 0.8, 0.7]])
    plain, places, none = TokenChooser(SamplingParams()), range(3), [None] * 3
    for kind, order in (
        (Certainty.PROBABILITY, [0, 1, 2]),
        (Certainty.ENTROPY, [0, 1, 2]),
        (Certainty.MARGIN, [0, 2, 1]),
    ):
        _, sure = plain.choose_surely(logits, places, none, kind)
        assert sure.argsort(descending=True).tolist() == order
    rule = ScheduledRule(constant(1), Certainty.ENTROPY)
    rule.begin(3)
    _, sure = plain.choose_surely(logits, places, none, rule.certainty)
    assert rule.select(sure, torch.tensor([False, True, True])).tolist() == [False, True, False]


def search(max_tokens: int, peak: float) -> tuple[int, list[int]]:
    scores: dict[int, float] = {}
    tried = []
    for length in climb(max_tokens, scores):
        tried.append(length)
        scores[length] = -abs(math.log(length / peak))
    return best_of(scores), tried


@pytest.mark.parametrize(("peak", "wanted"), [(1, {1}), (3, {3}), (8, {8}), (12, {12}), (24, {24}), (60, {48, 64})])
def test_the_search_for_a_length_finds_a_peak(peak: float, wanted: set[int]) -> None:
    found, tried = search(64, peak)
    assert found in wanted
    assert len(tried) == len(set(tried)) <= 10


@pytest.mark.parametrize("max_tokens", [1, 2, 5, 24, 100])
def test_the_search_keeps_to_the_budget(max_tokens: int) -> None:
    for peak in (0.5, 3.0, 1000.0):
        found, tried = search(max_tokens, peak)
        assert max(tried) <= max_tokens
        assert found == (max_tokens if peak == 1000.0 else min(found, max_tokens))


def test_longer_gaps_are_expected_to_be_less_sure() -> None:
    biases = [length_bias(length) for length in range(1, 200)]
    assert all(a > b for a, b in pairwise(biases))
    assert biases[-1] == pytest.approx(0.24, abs=1e-3)


def test_a_gap_s_length_costs_a_forward_a_try_and_the_choice_is_the_best_score() -> None:
    model = model_of(LogitAlignment.SHIFTED)
    sequence = sequence_of(model)
    searching = LengthSearch(chooser(), max_tokens=32)
    length = None
    while length is None:
        length = run_alone(searching.step(sequence))
    assert sequence.num_forwards == len(searching.scores)
    assert length == best_of(searching.scores)
    canvas = Canvas.around(sequence, length)
    logits = run_alone(CanvasForward(sequence_of(model), CanvasCache.NONE).logits(canvas, canvas.window))
    expected = float(
        logits.index_fill(-1, torch.tensor([MASK]), float("-inf")).softmax(-1).amax(-1).mean()
    ) / length_bias(length)
    assert searching.scores[length] == pytest.approx(expected, rel=1e-4)


def test_policies_that_cannot_be_are_named_with_those_that_can() -> None:
    model = model_of(LogitAlignment.SHIFTED)
    assert resolve_policy(Policy.AUTO, model) is Policy.CONFIDENCE
    with pytest.raises(CheckpointError, match="use confidence, fixed or p2"):
        resolve_policy(Policy.VERIFIED, model)
    with pytest.raises(
        CheckpointError, match=r"policy p2 needs a checkpoint that is denoised as a whole.*use verified"
    ):
        resolve_policy(Policy.P2, tiny_denoiser())
