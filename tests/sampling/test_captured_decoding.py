"""Decoding in rounds of static shape gives the text of decoding with the ordinary forward, and waits once a round."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import SHAPES, save_tiny_checkpoint, tiny_denoiser
from sampling.test_exactness import PATTERNS, answer, decode, prompt_of, sources_for

from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.errors import ConfigError
from diffusion_core.model.captured import EXACT_ROWS, CapturedForward, RoundOutputs
from diffusion_core.model.config import AttentionPattern, DrafterKind, LogitAlignment
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.requests import CompletionRequest, DecodingParams, Policy, SamplingParams
from diffusion_core.sampling.departures import DepartureRecorder
from diffusion_core.sampling.draft_statistics import DraftStatistics
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.rounds import RoundShape


def with_captured(denoiser: Denoiser, *, exact: bool = True) -> Denoiser:
    head = denoiser.draft_head
    taps = head.tap_layers if head is not None else ()
    captured = CapturedForward(denoiser.model, denoiser.adapter, max_positions=400, taps=taps, exact=exact)
    return dataclasses.replace(denoiser, captured=captured)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.GATED_ADAPTER, DrafterKind.DRAFT_HEAD])
@pytest.mark.parametrize("source", ["none", "truth", "edited"])
@pytest.mark.parametrize("exact", [True, False])
def test_verified_equals_autoregressive(shape: str, drafter: DrafterKind, source: str, exact: bool) -> None:
    plain = tiny_denoiser(shape)
    reference = with_captured(plain, exact=exact)
    denoiser = with_captured(tiny_denoiser(shape, drafter=drafter), exact=exact)
    for seed in range(4):
        prompt = prompt_of(seed)
        expected = decode(plain, prompt, Policy.AUTOREGRESSIVE)
        assert answer(decode(reference, prompt, Policy.AUTOREGRESSIVE)) == answer(expected)
        for block_size, round_shape in zip((3, 8, 16, 70), (*RoundShape, RoundShape.ALL_LENGTHS), strict=True):
            drafts = sources_for(source, prompt, expected.answer)
            found = decode(denoiser, prompt, Policy.VERIFIED, sources=drafts, shape=round_shape, block_size=block_size)
            assert answer(found) == answer(expected)


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_sampled_text_is_the_same(temperature: float) -> None:
    plain = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    captured, sampling, prompt = with_captured(plain), SamplingParams(temperature=temperature, seed=4), prompt_of(3)
    expected = decode(plain, prompt, Policy.AUTOREGRESSIVE, sampling=sampling)
    for shape in RoundShape:
        drafts = sources_for("edited", prompt, expected.answer)
        found = decode(captured, prompt, Policy.VERIFIED, sampling=sampling, sources=drafts, shape=shape, block_size=4)
        assert answer(found) == answer(expected)


@pytest.mark.parametrize(("attention", "alignment"), PATTERNS)
@pytest.mark.parametrize("policy", [Policy.CONFIDENCE, Policy.FIXED])
def test_parallel_policies_give_the_same_text(
    attention: AttentionPattern, alignment: LogitAlignment, policy: Policy
) -> None:
    plain = tiny_denoiser(drafter=DrafterKind.MODEL, attention=attention, alignment=alignment)
    captured = with_captured(plain)
    for seed in range(4):
        expected = decode(plain, prompt_of(seed), policy, tau=0.4, tau_low=0.2, num_per_step=2)
        found = decode(captured, prompt_of(seed), policy, tau=0.4, tau_low=0.2, num_per_step=2)
        assert answer(found) == answer(expected)
        assert found.num_forwards == expected.num_forwards


@pytest.mark.parametrize("shape", [RoundShape.OPTIMISTIC, RoundShape.ALL_LENGTHS])
def test_reading_all_slots_at_once_gives_the_drafts_of_reading_one_group(shape: RoundShape) -> None:
    """A recorder makes the policy read the group that fits after the verdict; the forwards must be the same."""
    denoiser = with_captured(tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER))
    prompt = prompt_of(6)
    expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE)

    class Telling(TokenChooser):
        is_plain = False  # type: ignore[assignment]

    counts = []
    for chooser in (TokenChooser, Telling):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diffusion_core.sampling.block_decoder.TokenChooser", chooser)
            drafts = sources_for("edited", prompt, expected.answer)
            found = decode(denoiser, prompt, Policy.VERIFIED, sources=drafts, shape=shape, block_size=4)
        assert answer(found) == answer(expected)
        counts.append(found.num_forwards)
    assert counts[0] == counts[1]


def test_rounds_never_exceed_the_rows_of_an_exact_one() -> None:
    denoiser = with_captured(tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER))
    assert denoiser.captured is not None
    asked: list[int] = []
    evaluate = denoiser.captured.evaluate
    denoiser.captured.evaluate = lambda *args, **more: (asked.append(len(args[1])), evaluate(*args, **more))[1]  # type: ignore
    ordinary: list[int] = []
    denoiser.model.register_forward_pre_hook(lambda _, args: ordinary.append(args[0].shape[1]))
    prompt = prompt_of(2)
    truth = decode(tiny_denoiser(), prompt, Policy.AUTOREGRESSIVE).answer
    for shape in RoundShape:
        for block_size in (4, 60, 200):
            drafts = sources_for("truth", prompt, truth)
            decode(denoiser, prompt, Policy.VERIFIED, sources=drafts, shape=shape, block_size=block_size)
    assert asked and max(asked) <= EXACT_ROWS
    assert not ordinary


def test_what_a_round_taught_is_learned_while_the_next_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = with_captured(tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER))
    captured, events = denoiser.captured, []
    assert isinstance(captured, CapturedForward)
    evaluate, learn = captured.evaluate, DraftStatistics.learn

    def noted(*args: Any, **more: Any) -> RoundOutputs:
        events.append("begins")
        outputs = evaluate(*args, **more)
        events.append("ends")
        return outputs

    def learn_noted(*args: Any) -> None:
        events.append("learns")
        learn(*args)

    monkeypatch.setattr(captured, "evaluate", noted)
    monkeypatch.setattr(DraftStatistics, "learn", learn_noted)
    decode(denoiser, prompt_of(4), Policy.VERIFIED, sources=[], shape=RoundShape.ALL_LENGTHS, block_size=4)
    decoding = events[events.index("learns") - 3 :]  # from the first round on, before which the prompt was computed
    num_rounds = decoding.count("begins")
    assert num_rounds > 3
    assert decoding == ["begins", "ends", *["begins", "learns", "ends"] * (num_rounds - 1)]
    # An ordinary forward is one that it may be done beside, too.
    cache = KVCache(denoiser.model.config, capacity=200, dtype=denoiser.model.dtype)
    denoiser.evaluate(cache, [7] * 150)
    assert events[-1] == "learns" and events.count("learns") == num_rounds


def test_sureness_is_the_probability_of_the_token_that_stands_there() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    logits[2, 7] = 9.0
    chooser = TokenChooser(SamplingParams(), banned=[7, 8])
    chosen, sureness = chooser.choose_surely(logits, range(5), [None, 3, None, 7, None])
    allowed = chooser.allow(logits)
    assert chosen == allowed.argmax(-1).tolist() == chooser.choose(logits, range(5))
    probabilities = allowed.softmax(-1)
    expected = [probabilities[r, t] for r, t in enumerate([chosen[0], 3, chosen[2], 7, chosen[4]])]
    assert torch.equal(sureness, torch.stack(expected))
    assert sureness[3] == 0
    assert not TokenChooser(SamplingParams(), recorder=DepartureRecorder()).is_plain


@pytest.mark.parametrize("capture", ["off", "exact", "fast"])
def test_the_engine_answers_alike_with_every_setting(tmp_path: Path, capture: str) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "model")
    texts, captured_bytes = [], []
    for setting in ("off", capture):
        engine = Engine(EngineConfig(model=str(checkpoint), dtype="float32", max_context_tokens=512, capture=setting))
        engine.start()
        for policy in (Policy.AUTOREGRESSIVE, Policy.VERIFIED):
            jobs = [
                engine.submit(
                    CompletionRequest(
                        prefix=f"def f{i}(a, b):\n", stop_at_scope=False, max_tokens=40,
                        decoding=DecodingParams(policy=policy),
                    )
                )
                for i in range(5)
            ]  # fmt: skip
            texts.append([job.future.result(60).text for job in jobs])
        captured_bytes.append(engine.health().models[0].memory_bytes)
        if setting != "off":
            # Captured rounds follow fixed rules: of their model only each size is timed, at once, the head and all.
            time.sleep(0.2)
            costs = engine.health().decoding[0].costs
            assert [cost.rows for cost in costs][-1] == EXACT_ROWS
            assert all(cost.body_ms > 0 == cost.head_ms for cost in costs)
        engine.close()
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert (captured_bytes[1] > captured_bytes[0]) == (capture != "off")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto, exact, fast, off"):
        EngineConfig(capture="on")


@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.DRAFT_HEAD])
def test_what_a_round_left_behind_can_be_reused_and_copied(drafter: DrafterKind) -> None:
    denoiser = with_captured(tiny_denoiser(drafter=drafter))
    prompt = prompt_of(2) + prompt_of(4)
    expected = decode(denoiser, prompt, Policy.VERIFIED, block_size=4)
    copied = expected.cache.copy(3, 10)  # while it still lives where the rounds are
    for shared in (1, 5, len(prompt) - 1):
        used = decode(denoiser, prompt[:shared] + prompt_of(8), Policy.VERIFIED, block_size=4)
        used.cache.crop(shared)
        found = decode(denoiser, prompt, Policy.VERIFIED, cache=used.cache, block_size=4)
        assert answer(found) == answer(expected)
    assert answer(decode(denoiser, prompt, Policy.VERIFIED, cache=copied, block_size=4)) == answer(expected)


class OtherHead(CapturedForward):
    """Rounds whose own best tokens are not those of scores computed apart, as where two kernels round otherwise."""

    def evaluate(self, *given: Any, **named: Any) -> RoundOutputs:
        outputs = super().evaluate(*given, **named)
        if outputs.best is not None:
            scores = self._model.scores(outputs.hidden)
            outputs.best[: len(scores)] = scores.topk(2, dim=-1).indices[:, 1]
        return outputs


@pytest.mark.parametrize("seed", range(4))
def test_a_banned_token_of_one_row_does_not_change_how_others_are_chosen(seed: int) -> None:
    plain = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    denoiser = dataclasses.replace(plain, captured=OtherHead(plain.model, plain.adapter, max_positions=400))
    prompt = prompt_of(seed)
    free = decode(denoiser, prompt, Policy.AUTOREGRESSIVE)
    banned = tuple(sorted(set(free.answer))[::3])
    expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE, banned=banned)
    assert set(expected.answer).isdisjoint(banned)
    assert expected.answer != free.answer
    for shape in RoundShape:
        drafts = sources_for("edited", prompt, expected.answer)
        found = decode(denoiser, prompt, Policy.VERIFIED, sources=drafts, shape=shape, block_size=4, banned=banned)
        assert answer(found) == answer(expected)
