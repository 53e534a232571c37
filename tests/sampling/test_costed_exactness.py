"""No table of costs and no statistics can change a text: `verified` equals `autoregressive`, whatever the rounds."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from helpers.cost_tables import AMX, AVX2, FLAT, SLOW, random_table
from helpers.tiny_models import tiny_denoiser, tiny_tokenizer

from diffusion_core.model.config import DrafterKind
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.requests import DecodingParams, Policy, SamplingParams
from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.costed_rounds import RoundModel
from diffusion_core.sampling.drafts import DraftSource, LookupDraft
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

TOKENIZER = tiny_tokenizer()
NUM_TOKENS = 40
KINDS = [DrafterKind.NONE, DrafterKind.GATED_ADAPTER, DrafterKind.DRAFT_HEAD, DrafterKind.MODEL]


class WatchedSequence(DecodingSequence):
    """Remembers how many rows each forward had."""

    def forward(self, rows, **given):  # type: ignore[no-untyped-def]
        self.__dict__.setdefault("rows", []).append(len(rows))
        return super().forward(rows, **given)


def decode(
    denoiser: Denoiser, prompt: Sequence[int], policy: Policy, sources: Sequence[DraftSource] = (),
    rounds: RoundModel | None = None, sampling: SamplingParams | None = None, **decoding: object,
) -> DecodingSequence:  # fmt: skip
    cache = SequenceCache.create(denoiser, len(prompt) + NUM_TOKENS)
    sequence = WatchedSequence(denoiser, list(prompt), cache, num_prompt=len(prompt))
    params = DecodingParams(policy=policy, **decoding)  # type: ignore[arg-type]
    task = DecodingTask(max_tokens=NUM_TOKENS, decoding=params, sampling=sampling or SamplingParams())
    for _ in BlockDecoder(denoiser, TOKENIZER, sequence, task, sources, rounds=rounds).run():
        pass
    return sequence


def make_sources(prompt: list[int], expected: list[int], draw: random.Random) -> list[DraftSource]:
    spoiled = [token if draw.random() < 0.85 else draw.randrange(256) for token in expected]
    made: list[DraftSource] = [AlignedDraft(spoiled), LookupDraft(prompt)]
    return draw.sample(made, draw.randrange(3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_random_costs_change_no_text(kind: DrafterKind, seed: int) -> None:
    draw = random.Random(f"{kind} {seed}")
    denoiser = tiny_denoiser(drafter=kind, seed=seed)
    rounds = RoundModel(costs=CostModel(random_table(draw)))  # one for all prompts: what it learns must not matter
    for _ in range(6):
        prompt = [draw.randrange(256) for _ in range(draw.randrange(3, 60))]
        sampling = SamplingParams(temperature=draw.choice([0.0, 0.0, 0.9]), seed=draw.randrange(100))
        expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE, sampling=sampling).answer
        sources = make_sources(prompt, expected, draw)
        size = draw.choice([0, 1, 3, 16, 200])
        found = decode(denoiser, prompt, Policy.VERIFIED, sources, rounds, sampling, block_size=size)
        assert found.answer[:NUM_TOKENS] == expected[:NUM_TOKENS]
        assert max(found.__dict__["rows"][1:]) <= MAX_DECODE_ROWS


@pytest.mark.parametrize("table", [FLAT, SLOW, AMX, AVX2], ids=["flat", "slow", "amx", "avx2"])
@pytest.mark.parametrize("kind", KINDS)
def test_costs_of_real_devices_change_no_text(table: object, kind: DrafterKind) -> None:
    denoiser, draw = tiny_denoiser(drafter=kind), random.Random(5)
    rounds = RoundModel(costs=CostModel(table))  # type: ignore[arg-type]
    for _ in range(8):
        prompt = [draw.randrange(256) for _ in range(draw.randrange(3, 60))]
        expected = decode(denoiser, prompt, Policy.AUTOREGRESSIVE).answer
        found = decode(denoiser, prompt, Policy.VERIFIED, make_sources(prompt, expected, draw), rounds)
        assert found.answer[:NUM_TOKENS] == expected[:NUM_TOKENS]


def test_the_same_costs_and_statistics_choose_the_same_rounds() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    prompt = list(range(40)) * 2
    # Sampled: the times of sampled rounds are not learned from, so nothing depends on the clock.
    sampling = SamplingParams(temperature=0.5, seed=1)
    rows = []
    for _ in range(2):
        rounds = RoundModel(costs=CostModel(AMX))
        sequence = decode(denoiser, prompt, Policy.VERIFIED, [LookupDraft(prompt)], rounds, sampling)
        rows.append(sequence.__dict__["rows"])
    assert rows[0] == rows[1]
