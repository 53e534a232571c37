"""Frames of a watched request: they tell the whole answer, and end with its cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.config import EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import CompletionRequest, DecodingParams, EditRequest, Policy, Result
from diffusion_core.trace import TraceFrame, watch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
async def client(checkpoint: Path) -> AsyncIterator[AsyncEngine]:
    made = AsyncEngine(EngineConfig(model=str(checkpoint), dtype="float32", max_context_tokens=2048))
    made.start()
    yield made
    await made.aclose()


async def follow(
    client: AsyncEngine, request: CompletionRequest | EditRequest
) -> tuple[list[TraceFrame], list[TraceFrame], Result]:
    """Frames of the prompt, frames of the answer, and the result."""
    items = [item async for item in watch(client, request)]
    result = items.pop()
    assert isinstance(result, Result)
    frames = [item for item in items if isinstance(item, TraceFrame)]
    assert len(frames) == len(items)
    num_prompt = sum(bool(frame.num_prefilled) for frame in frames)
    return frames[:num_prompt], frames[num_prompt:], result


@pytest.mark.parametrize("policy", [Policy.AUTOREGRESSIVE, Policy.VERIFIED])
async def test_the_frames_tell_the_whole_answer(client: AsyncEngine, policy: Policy) -> None:
    request = CompletionRequest(
        prefix="a = 1\nb = 2\nc = a + b\n" * 30, max_tokens=30, decoding=DecodingParams(policy=policy)
    )
    prompt, frames, result = await follow(client, request)
    plain = await client.complete(request)
    assert result.text == plain.text
    assert sum(frame.num_prefilled for frame in prompt) == result.num_computed_tokens - 1
    assert len(frames) == result.num_forwards
    settled = [token for frame in frames for token in frame.settled]
    assert "".join(token.text for token in settled).startswith(result.text)
    assert all(token.confidence is not None and 0 < token.confidence <= 1 for token in settled)
    times = [frame.ms for frame in prompt + frames]
    assert times == sorted(times)
    if policy is Policy.VERIFIED:
        for before, after in pairwise(frames):
            if after.num_accepted and not after.source:  # slots that the forward before had drafted
                drafted = [slot.token.text for slot in before.slots][: after.num_accepted]
                assert drafted == [token.text for token in after.settled[: after.num_accepted]]


async def test_an_edit_tells_what_it_goes_on_with(client: AsyncEngine) -> None:
    request = EditRequest(selection="a = 1\nb = 2\nc = 3\n", instruction="Add one.", max_tokens=12)
    _, frames, result = await follow(client, request)
    assert result.num_tokens == 12
    assert any(frame.expected for frame in frames)
    assert any(frame.source == "selection" for frame in frames)


async def test_leaving_ends_the_work(client: AsyncEngine) -> None:
    request = CompletionRequest(prefix="x = 1\n" * 20, stop_at_scope=False, max_tokens=4000)
    async with aclosing(watch(client, request)) as items:
        async for item in items:
            assert isinstance(item, TraceFrame)
            if item.settled:
                break
    for _ in range(100):
        if not (await client.health()).num_active:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the request goes on though nobody watches")


async def test_only_one_answer_can_be_watched(client: AsyncEngine) -> None:
    with pytest.raises(InvalidRequest, match="num_alternatives"):
        await follow(client, CompletionRequest(prefix="a", num_alternatives=2))
