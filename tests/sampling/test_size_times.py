"""What captured rounds cost by size, and which block goes with it."""

from __future__ import annotations

import dataclasses

import pytest
from helpers.tiny_models import tiny_denoiser
from helpers.whole_rounds import config_of, random_adapter, random_model, whole_forward
from hypothesis import given
from hypothesis import strategies as st
from sampling.test_exactness import answer, decode, prompt_of

from diffusion_core.model.captured import ROW_BUCKETS, CapturedForward
from diffusion_core.model.config import DiffusionConfig, DrafterKind
from diffusion_core.requests import Policy
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.draft_statistics import SLOTS, DraftKind, DraftStatistics
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.size_times import choose_block, time_sizes

# About an H200's, of the 0.5B.
SIZE_MS = {16: 1.05, 32: 1.14, 64: 1.64}
PRIOR = DraftStatistics().reach(DraftKind(SLOTS))


@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.GATED_ADAPTER])
def test_every_size_is_timed(drafter: DrafterKind) -> None:
    plain = tiny_denoiser(drafter=drafter)
    assert time_sizes(plain) == {}
    captured = CapturedForward(plain.model, plain.adapter, max_positions=400, exact=False)
    times = time_sizes(dataclasses.replace(plain, captured=captured))
    assert tuple(times) == ROW_BUCKETS
    assert all(0 < ms < 1000 for ms in times.values())


def test_a_round_that_is_one_kernel_is_timed() -> None:
    model = random_model(config_of())
    adapter = random_adapter(model.config, 16)
    whole = whole_forward(model, adapter)
    times = time_sizes(Denoiser(model, DiffusionConfig(prompt_format="plain/1"), adapter, captured=whole))
    assert tuple(times) == whole.row_buckets
    # Run thread by thread, more rows are more work.
    assert times[16] < times[64]


def test_what_contexts_are_too_short_for_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(config_of())
    whole = whole_forward(model, None)
    monkeypatch.setattr(whole, "_max_positions", 300)
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"), captured=whole)
    assert tuple(time_sizes(denoiser)) == (16, 32), "64 rows would not fit behind what is seen"


def test_the_block_goes_with_what_sizes_cost_and_with_what_is_accepted() -> None:
    assert choose_block(4, SIZE_MS, PRIOR) == 4
    assert choose_block(4, {**SIZE_MS, 16: 0.7}, PRIOR) == 3, "16 rows cost so much less"
    assert choose_block(4, {16: 1.0, 32: 1.0, 64: 1.0}, PRIOR) == 4
    assert choose_block(8, SIZE_MS, [1.0] * 65) == 7, "eight slots behind all lengths would be 81 rows"
    assert choose_block(4, SIZE_MS, [1.0, 0.5, 0.1, 0.01, *[0.0] * 61]) == 3, "the fourth is never right"
    assert choose_block(1, SIZE_MS, PRIOR) == 1


@given(st.integers(1, 16), st.lists(st.floats(0.1, 10), min_size=1, max_size=3), st.floats(0.01, 0.99))
def test_no_other_block_promises_clearly_more(most: int, ms: list[float], right: float) -> None:
    size_ms = dict(zip((16, 32, 64), sorted(ms), strict=False))
    reach = [right**n for n in range(65)]
    chosen = choose_block(most, size_ms, reach)
    assert 1 <= chosen <= most
    rates = {
        block: sum(reach[: block + 1]) / min(size_ms[size] for size in size_ms if size >= (block + 1) ** 2)
        for block in range(1, most + 1)
        if (block + 1) ** 2 <= max(size_ms)
    }
    assert rates[chosen] >= 0.94 * max(rates.values())


def test_an_answer_s_rounds_have_the_block_that_was_chosen_unless_one_is_asked_for() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    captured = CapturedForward(denoiser.model, denoiser.adapter, max_positions=400)
    denoiser = dataclasses.replace(denoiser, captured=captured)
    most = denoiser.contract.block_size
    assert most > 3
    cheap = {16: 0.1, 32: 10.0, 64: 20.0}
    texts = []
    for size_ms, asked, expected in (({}, 0, None), (cheap, 0, 3), (cheap, 5, None)):
        rounds = RoundModel(size_ms=size_ms)
        found = decode(
            denoiser, prompt_of(3), Policy.VERIFIED, sources=[], shape=RoundShape.ALL_LENGTHS,
            block_size=asked, rounds=rounds,
        )  # fmt: skip
        assert (rounds.plan.block_size if rounds.plan else None) == expected
        texts.append(answer(found))
    assert texts[0] == texts[1] == texts[2]
