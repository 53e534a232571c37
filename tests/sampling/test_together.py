"""Sequences that share forwards: each row has the bits that it has alone, each text is that of its own decoding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.tiny_models import tiny_adapter, tiny_config, tiny_denoiser, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind, LogitAlignment
from diffusion_core.model.kv_cache import KEY_BUCKET, KVCache
from diffusion_core.model.masks import causal, round_mask
from diffusion_core.model.together import SequenceRows, evaluate_together
from diffusion_core.model.transformer import Transformer
from diffusion_core.requests import DecodingParams, Policy, SamplingParams
from diffusion_core.sampling.asking import RowsWanted
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask, Progress
from diffusion_core.sampling.drafts import LookupDraft
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache
from diffusion_core.sampling.together import answer_readings, answer_rows

TOKENIZER = tiny_tokenizer()
NUM_TOKENS = 12


def packed_model(dtype: torch.dtype) -> Transformer:
    torch.manual_seed(5)
    config = tiny_config(hidden_size=256, intermediate_size=512, num_layers=3, num_heads=8, head_dim=32)
    model = Transformer(config).to(dtype).eval().requires_grad_(False)
    model.pack()
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_slots", [False, True])
def test_a_row_has_the_same_bits_in_any_company(dtype: torch.dtype, has_slots: bool) -> None:
    """Sequences of many lengths, on both sides of a key bucket, in one forward of up to 96 rows."""
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no products in bfloat16")
    model = packed_model(dtype)
    adapter = tiny_adapter(model.config).to(dtype) if has_slots else None
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"), adapter)
    draw = random.Random(3)
    lengths = [0, 1, 7, KEY_BUCKET - 3, KEY_BUCKET, 2 * KEY_BUCKET - 1, 300, 40]
    caches = []
    for length in lengths:
        cache = KVCache(model.config, capacity=length + 32, dtype=dtype)
        if length:
            denoiser.evaluate(cache, [draw.randrange(250) for _ in range(length)])
            cache.commit(length)
        caches.append(cache)
    size = 4 if has_slots else 0
    counts = [3, 1, 6, 8, 2, 5, 24 if not has_slots else 12, 1]
    rows = []
    for cache, count in zip(caches, counts, strict=True):
        first = cache.length
        tokens = [draw.randrange(250) for _ in range(count)] + [model.config.vocab_size - 1] * size
        positions = [*range(first, first + count), *range(first + count, first + count + size)]
        visible = round_mask(count, size, (count,)) if size else causal(count)
        rows.append(SequenceRows(cache, tokens, positions, visible, count))
    together = [hidden.clone() for hidden, _ in evaluate_together(model, adapter, rows)]
    for each, found in zip(rows, together, strict=True):
        alone = denoiser.evaluate(
            each.cache, each.tokens, positions=each.positions, visible=each.visible,
            first_slot=each.num_clean if size else None,
        )  # fmt: skip
        assert torch.equal(found[: each.num_clean], alone[: each.num_clean])
        torch.testing.assert_close(found, alone, rtol=2e-2, atol=2e-2)


def start(denoiser: Denoiser, prompt: Sequence[int], policy: Policy, **task: Any) -> tuple[DecodingSequence, Any]:
    cache = SequenceCache.create(denoiser, len(prompt) + NUM_TOKENS)
    sequence = DecodingSequence(denoiser, list(prompt), cache, num_prompt=len(prompt))
    chosen = DecodingTask(max_tokens=NUM_TOKENS, decoding=DecodingParams(policy=policy, block_size=4), **task)
    return sequence, BlockDecoder(denoiser, TOKENIZER, sequence, chosen, [LookupDraft(list(prompt))]).decode()


def expected_answer(denoiser: Denoiser, prompt: Sequence[int], policy: Policy, **task: Any) -> list[int]:
    sequence, _ = start(denoiser, prompt, policy)
    chosen = DecodingTask(max_tokens=NUM_TOKENS, decoding=DecodingParams(policy=policy, block_size=4), **task)
    for _ in BlockDecoder(denoiser, TOKENIZER, sequence, chosen).run():
        pass
    return sequence.answer[:NUM_TOKENS]


class Crowd:
    """Decodes several sequences at once: a forward for all that want one, their prompts a piece at a time."""

    def __init__(self, piece: int) -> None:
        self._piece = piece
        self._decodings: dict[int, Any] = {}
        self._wants: dict[int, Any] = {}
        self.most_sequences = 0

    @property
    def names(self) -> list[int]:
        return list(self._decodings)

    def join(self, name: int, decoding: Any) -> None:
        self._decodings[name] = decoding
        self._resume(name, None)

    def leave(self, name: int) -> None:
        self._decodings.pop(name).close()
        self._wants.pop(name)

    def forward(self) -> None:
        names = list(self._wants)
        wants = [
            self._wants[name].first(self._piece) if self._wants[name].piece else self._wants[name] for name in names
        ]
        shared, num_rows = [], 0
        for name, want in zip(names, wants, strict=True):
            if not want.can_share:
                self._resume(name, want.alone())
            elif num_rows + len(want.tokens) <= want.denoiser.most_shared_rows:  # the others wait for the next forward
                shared.append(name)
                num_rows += len(want.tokens)
        if shared:
            outcomes = answer_rows([want for name, want in zip(names, wants, strict=True) if name in shared])
            self.most_sequences = max(self.most_sequences, len(shared))
            for name, outcome in zip(shared, outcomes, strict=True):
                self._resume(name, outcome)
        while reading := [n for n, want in self._wants.items() if not isinstance(want, RowsWanted)]:
            for name, outcome in zip(reading, answer_readings([self._wants[n] for n in reading]), strict=True):
                self._resume(name, outcome)

    def _resume(self, name: int, outcome: Any) -> None:
        self._wants.pop(name, None)
        try:
            item = self._decodings[name].send(outcome)
            while isinstance(item, Progress):
                item = self._decodings[name].send(None)
        except StopIteration:
            del self._decodings[name]
        else:
            self._wants[name] = item


def decode_together(
    denoiser: Denoiser, prompts: Sequence[Sequence[int]], tasks: Sequence[dict[str, Any]], *, piece: int
) -> list[DecodingSequence]:
    """The sequences after `verified` has decoded all of them at once, each with its task."""
    crowd, sequences = Crowd(piece), []
    for name, (prompt, task) in enumerate(zip(prompts, tasks, strict=True)):
        sequence, decoding = start(denoiser, prompt, Policy.VERIFIED, **task)
        sequence.company = len(prompts)
        sequences.append(sequence)
        crowd.join(name, decoding)
    while crowd.names:
        crowd.forward()
    assert crowd.most_sequences == len(prompts)
    return sequences


def prompts_of(seed: int, count: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(256) for _ in range(draw.randrange(2, 180))] for _ in range(count)]


@pytest.mark.parametrize(
    ("shape", "drafter"),
    [("llama", DrafterKind.NONE), ("qwen3", DrafterKind.GATED_ADAPTER), ("qwen2", DrafterKind.DRAFT_HEAD)],
)
def test_verified_in_company_is_autoregressive_alone(shape: str, drafter: DrafterKind) -> None:
    denoiser, plain = tiny_denoiser(shape, drafter=drafter), tiny_denoiser(shape)
    sampling = [SamplingParams(), SamplingParams(temperature=0.9, seed=4)]
    prompts = prompts_of(1, 5)
    for round_shape in (RoundShape.TWO_PASS, RoundShape.ALL_LENGTHS):
        tasks = [{"sampling": sampling[name % 2], "round_shape": round_shape} for name in range(len(prompts))]
        sequences = decode_together(denoiser, prompts, tasks, piece=9)
        for name, (prompt, sequence) in enumerate(zip(prompts, sequences, strict=True)):
            expected = expected_answer(plain, prompt, Policy.AUTOREGRESSIVE, sampling=sampling[name % 2])
            assert sequence.answer[:NUM_TOKENS] == expected


@pytest.mark.parametrize("policy", [Policy.CONFIDENCE, Policy.FIXED])
@pytest.mark.parametrize("attention", [AttentionPattern.CAUSAL_CONTEXT, AttentionPattern.BLOCK_CAUSAL])
@pytest.mark.parametrize("alignment", list(LogitAlignment))
def test_blocks_are_denoised_in_company_as_alone(
    policy: Policy, attention: AttentionPattern, alignment: LogitAlignment
) -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.MODEL, attention=attention, alignment=alignment)
    crowd, sequences, prompts = Crowd(piece=12), [], prompts_of(2, 4)
    for name, prompt in enumerate(prompts):
        sequence, decoding = start(denoiser, prompt, policy)
        sequences.append(sequence)
        crowd.join(name, decoding)
    while crowd.names:
        crowd.forward()
    assert crowd.most_sequences == len(prompts)
    for prompt, sequence in zip(prompts, sequences, strict=True):
        assert sequence.answer[:NUM_TOKENS] == expected_answer(denoiser, prompt, policy)


def test_slots_that_make_the_text_under_an_adapter_do_not_share() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    crowd, prompts = Crowd(piece=20), prompts_of(4, 3)
    answers = []
    for name, prompt in enumerate(prompts):
        sequence, decoding = start(denoiser, prompt, Policy.CONFIDENCE)
        answers.append(sequence)
        crowd.join(name, decoding)
    while crowd.names:
        crowd.forward()
    for prompt, sequence in zip(prompts, answers, strict=True):
        assert sequence.answer[:NUM_TOKENS] == expected_answer(denoiser, prompt, Policy.CONFIDENCE)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 19)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("forward"), st.integers(1, 4)),
    ),
    min_size=1,
    max_size=24,
)
CROWD_MODEL = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
CROWD_PROMPTS = prompts_of(9, 20)
CROWD_ANSWERS: dict[int, list[int]] = {}


@settings(deadline=None, max_examples=25)
@given(EVENTS, st.integers(1, 40))
def test_whoever_comes_and_goes_each_text_is_its_own(events: list[tuple[str, int]], piece: int) -> None:
    crowd, sequences = Crowd(piece), {}

    def run(times: int) -> None:
        for _ in range(times):
            if crowd.names:
                crowd.forward()

    for number, (event, value) in enumerate(events):
        if event == "join" and len(crowd.names) < 8:
            sequence, decoding = start(CROWD_MODEL, CROWD_PROMPTS[value], Policy.VERIFIED)
            sequence.company = 1 + number % 8
            sequences[number] = (value, sequence)
            crowd.join(number, decoding)
        elif event == "leave" and crowd.names:
            name = crowd.names[value % len(crowd.names)]
            crowd.leave(name)
            del sequences[name]
        elif event == "forward":
            run(value)
    while crowd.names:
        crowd.forward()
    for prompt, sequence in sequences.values():
        if prompt not in CROWD_ANSWERS:
            CROWD_ANSWERS[prompt] = expected_answer(CROWD_MODEL, CROWD_PROMPTS[prompt], Policy.AUTOREGRESSIVE)
        assert sequence.answer[:NUM_TOKENS] == CROWD_ANSWERS[prompt]
