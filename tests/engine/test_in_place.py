"""Models that are denoised as a whole behind the real engine: filling in between, open ends, edits, and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from helpers.family_fixtures import fixture_folder

from diffusion_core.config import EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.errors import CheckpointError, RequestCancelled
from diffusion_core.net.protocol import decode, encode
from diffusion_core.requests import (
    CanvasCache,
    CompletionRequest,
    DecodingParams,
    EditRequest,
    FinishReason,
    Policy,
    Result,
    WarmRequest,
)
from diffusion_core.sampling.asking import run_alone
from diffusion_core.sampling.canvas_settings import make_canvas_policy
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache

FAMILIES = ("dream", "llada", "coda", "open-dcoder", "a2d-qwen2-mdlm")
PREFIX, SUFFIX = "def add(a, b):\n    ", "\n\nprint(add(1, 2))\n"


async def engine_of(family: str, *, capture: str = "off") -> AsyncEngine:
    model = str(fixture_folder(family))
    made = AsyncEngine(
        EngineConfig(model=model, family=family, dtype="float32", max_context_tokens=512, capture=capture)
    )
    made.start()
    return made


@pytest.fixture(params=FAMILIES)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    made = await engine_of(request.param)
    yield made
    await made.aclose()


@pytest.fixture
async def dream() -> AsyncIterator[AsyncEngine]:
    made = await engine_of("dream")
    yield made
    await made.aclose()


def gap(**changes: object) -> CompletionRequest:
    given: dict[str, object] = {"prefix": PREFIX, "suffix": SUFFIX, "max_tokens": 24, "stop_at_scope": False}
    return CompletionRequest(**(given | changes))  # type: ignore[arg-type]


def decode_beside(engine: AsyncEngine, request: CompletionRequest) -> list[int]:
    """The same answer without engine, job and stop rules: the canvas policy over prefix and suffix."""
    model = engine.loaded_models()[0]
    contract, encoder = model.denoiser.contract, model.encoder
    prompt = encoder.encode_completion(request, request.max_tokens)
    sequence = DecodingSequence(
        model.denoiser, list(prompt.tokens), SequenceCache.create(model.denoiser, 8),
        num_prompt=len(prompt.tokens), suffix=prompt.suffix,
    )  # fmt: skip
    policy = make_canvas_policy(
        Policy.CONFIDENCE, request.decoding, TokenChooser(request.sampling, model.banned_token_ids), contract,
        max_tokens=request.max_tokens, fills_in=bool(prompt.suffix), stop_ids=model.stop_token_ids,
    )  # fmt: skip
    while not run_alone(policy.step(sequence)).is_final:
        pass
    return sequence.answer


async def test_the_middle_is_filled_in_between(client: AsyncEngine) -> None:
    request = gap()
    result = await client.complete(request)
    assert result.policy == Policy.CONFIDENCE
    assert 1 <= result.num_tokens <= 24
    is_cut = result.num_tokens == 24  # the longest gap that the budget allows
    assert result.finish_reason is (FinishReason.LENGTH if is_cut else FinishReason.STOP)
    answer = decode_beside(client, request)
    assert result.num_tokens == len(answer)
    decoded = client.loaded_models()[0].tokenizer.decode(answer)
    assert decoded.startswith(result.text)
    assert max(answer) < client.loaded_models()[0].tokenizer.get_vocab_size(), "rows of no token are never chosen"
    assert decoded.removeprefix(result.text).strip("\ufffd") == "", "at most bytes that make no character yet"
    model = client.loaded_models()[0]
    prompt = model.encoder.encode_completion(request, 24)
    assert model.encoder.encode_text(SUFFIX) == list(prompt.suffix[: len(model.encoder.encode_text(SUFFIX))])
    assert result.num_prompt_tokens == len(prompt.tokens) + len(prompt.suffix)


async def test_what_stands_behind_is_read(client: AsyncEngine) -> None:
    texts = {(await client.complete(gap(suffix=suffix))).text for suffix in (SUFFIX, "x = 1\n", "}\n\n# end\n", "")}
    assert len(texts) >= 3


async def test_an_open_end_goes_on_to_the_budget(client: AsyncEngine) -> None:
    result = await client.complete(gap(suffix="", max_tokens=40))
    assert result.finish_reason is FinishReason.LENGTH
    assert result.num_tokens == 40, "these models never choose their end of text"


async def test_an_empty_document_and_a_gap_at_its_beginning_are_filled(client: AsyncEngine) -> None:
    for suffix in ("", SUFFIX):
        assert (await client.complete(gap(prefix="", suffix=suffix))).num_tokens


async def test_caches_change_keys_and_not_the_way_of_the_engine(dream: AsyncEngine) -> None:
    results: dict[CanvasCache, Result] = {}
    for cache in CanvasCache:
        decoding = DecodingParams(cache=cache, block_size=8)
        results[cache] = await dream.complete(gap(suffix="", max_tokens=32, decoding=decoding))
        assert results[cache].num_tokens == 32
    assert results[CanvasCache.AUTO].text == results[CanvasCache.PREFIX].text
    assert len({result.text for result in results.values()}) == 3, "kept keys are an approximation, and each its own"
    again = await dream.complete(gap(suffix="", max_tokens=32, decoding=DecodingParams(cache=CanvasCache.DUAL)))
    assert again.num_reused_tokens == 0, "a bidirectional prefix is of no use to the next request"


@pytest.mark.parametrize("policy", [Policy.FIXED, Policy.P2])
async def test_the_other_policies_fill_in_too(client: AsyncEngine, policy: Policy) -> None:
    few = await client.complete(gap(decoding=DecodingParams(policy=policy, num_per_step=4)))
    many = await client.complete(gap(decoding=DecodingParams(policy=policy)))
    assert few.policy == many.policy == policy
    assert few.num_tokens == many.num_tokens, "the length was settled before"
    assert few.num_forwards < many.num_forwards


@pytest.mark.parametrize("policy", [Policy.VERIFIED, Policy.AUTOREGRESSIVE])
async def test_a_policy_that_cannot_be_names_those_that_can(client: AsyncEngine, policy: Policy) -> None:
    with pytest.raises(CheckpointError, match=rf"policy {policy} needs .* bidirectional .*use confidence, fixed or p2"):
        await client.complete(gap(decoding=DecodingParams(policy=policy)))


async def test_marks_in_user_code_stay_code(dream: AsyncEngine) -> None:
    """Else the model would fill in there as well."""
    request = gap(prefix="mask = '<|mask|>'\n", suffix="\nend = '<|endoftext|>'\n")
    await dream.complete(request)
    model = dream.loaded_models()[0]
    prompt = model.encoder.encode_completion(request, 24)
    assert model.denoiser.mask_id not in (*prompt.tokens, *prompt.suffix)
    assert prompt.suffix.count(256) == 1, "the one that the format puts at the end"


async def test_edits_are_asked_in_the_family_s_own_turns() -> None:
    request = EditRequest(selection="x = 1\n", instruction="rename x", language="python", max_tokens=24)
    for family, opening in (("dream", "<|im_start|>system\n"), ("llada", "<|startoftext|><|start_header_id|>user")):
        client = await engine_of(family)
        frames = [frame async for frame in client.edit(request)]
        result = frames[-1]
        assert isinstance(result, Result)
        assert result.num_tokens == 24
        model = client.loaded_models()[0]
        text = model.tokenizer.decode(model.encoder.encode_edit(request, 24).tokens, skip_special_tokens=False)
        assert text.startswith(opening)
        assert text.endswith("```python\n"), "the answer begins with code"
        await client.aclose()


async def test_a_model_that_was_never_asked_anything_has_no_edits() -> None:
    client = await engine_of("open-dcoder")
    with pytest.raises(CheckpointError, match="prompt format infill/1 has no instruction edits"):
        async for _ in client.edit(EditRequest(selection="x = 1\n", instruction="rename x")):
            pass
    await client.aclose()


@pytest.mark.parametrize("family", ["dream", "llada"])
async def test_rounds_of_a_static_shape_give_the_same_text(family: str) -> None:
    """What decoding on a GPU runs; here the forwards of a block alone are such rounds, those of everything are not."""
    texts = set()
    for capture in ("off", "exact"):
        client = await engine_of(family, capture=capture)
        for cache in (CanvasCache.NONE, CanvasCache.DUAL):
            decoding = DecodingParams(cache=cache, block_size=8)
            texts.add((cache, (await client.complete(gap(decoding=decoding))).text))
        await client.aclose()
    assert len(texts) == 2


async def test_a_cancel_ends_it_between_two_forwards(dream: AsyncEngine) -> None:
    await dream.complete(gap(max_tokens=4))
    task = asyncio.ensure_future(dream.complete(gap(suffix="", max_tokens=256)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, RequestCancelled)):
        await task
    assert (await dream.complete(gap())).num_tokens, "and the next one is answered"


async def test_alternatives_differ_and_keep_the_suffix(dream: AsyncEngine) -> None:
    result = await dream.complete(gap(num_alternatives=2))
    assert result.alternatives
    assert len({result.text, *result.alternatives}) == 1 + len(result.alternatives)


async def test_a_warm_up_computes_nothing_that_would_be_wrong(dream: AsyncEngine) -> None:
    await dream.warm(WarmRequest(completion=gap()))
    cold = await dream.complete(gap())
    assert cold.num_reused_tokens == 0


def test_the_cache_travels_and_is_left_out_where_it_says_nothing() -> None:
    plain = gap()
    asked = replace(plain, decoding=DecodingParams(cache=CanvasCache.DUAL))
    assert decode(encode(asked), CompletionRequest) == asked
    assert b"cache" not in encode(plain)
    assert decode(encode(plain), CompletionRequest) == plain
