"""The engine's thread with a tiny model: answers, cancels, deadlines, prefix reuse, errors."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import wait
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_models import save_tiny_checkpoint, tiny_tokenizer

from diffusion_core.config import EngineConfig
from diffusion_core.engine import job
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.errors import (
    CheckpointError,
    Closed,
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    RequestCancelled,
)
from diffusion_core.requests import (
    CompletionRequest,
    DecodingParams,
    EditRequest,
    FinishReason,
    Policy,
    PreviewFrame,
    Result,
    WarmRequest,
)
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def engine(checkpoint: Path) -> Iterator[Engine]:
    made = Engine(EngineConfig(model=str(checkpoint), dtype="float32", max_context_tokens=2048))
    made.start()
    yield made
    made.close()


@pytest.fixture
async def client(checkpoint: Path) -> AsyncIterator[AsyncEngine]:
    made = AsyncEngine(EngineConfig(model=str(checkpoint), dtype="float32", max_context_tokens=2048))
    made.start()
    yield made
    await made.aclose()


def completion(prefix: str = "def add(a, b):\n", **changes: object) -> CompletionRequest:
    return CompletionRequest(prefix=prefix, suffix="\nend\n", stop_at_scope=False, **changes)  # type: ignore[arg-type]


async def test_an_answer_says_how_it_was_made(client: AsyncEngine) -> None:
    request = completion(max_tokens=20)
    result = await client.complete(request)
    assert result.id == request.id
    assert result.finish_reason is FinishReason.LENGTH
    assert result.num_tokens == 20
    assert 1 <= result.num_forwards <= 20
    assert result.policy == Policy.VERIFIED
    assert result.num_prompt_tokens == result.num_reused_tokens + result.num_computed_tokens > 0
    assert result.timings.total_ms >= result.timings.denoise_ms > 0


async def test_policies_agree_and_lookup_changes_nothing(client: AsyncEngine) -> None:
    texts = set()
    for policy in (Policy.AUTOREGRESSIVE, Policy.VERIFIED):
        for use_lookup in (True, False):
            decoding = DecodingParams(policy=policy, use_lookup=use_lookup)
            texts.add((await client.complete(completion(max_tokens=40, decoding=decoding))).text)
    texts.add((await client.complete(completion(max_tokens=40, last_suggestion="something else"))).text)
    assert len(texts) == 1


async def test_typing_on_computes_only_what_is_new(client: AsyncEngine) -> None:
    context = "x = [i for i in range(10)]\n" * 16
    await client.complete(completion(context, max_tokens=8))
    computed = []
    for end in range(1, 41):
        typed = ("for item in x:\n    print(item, end='')\n" * 2)[:end]
        computed.append((await client.complete(completion(context + typed, max_tokens=8))).num_computed_tokens)
    # One byte is one token here; the last token before the answer may have to be computed again.
    assert max(computed) <= 2


async def test_a_warm_up_leaves_nothing_to_compute(client: AsyncEngine) -> None:
    request = completion("a = 1\n" * 30, max_tokens=4)
    await client.warm(WarmRequest(completion=request))
    result = await client.complete(request)
    assert result.num_computed_tokens == 1


async def test_alternatives_are_other_texts_and_change_nothing(client: AsyncEngine) -> None:
    plain = await client.complete(completion(max_tokens=12))
    result = await client.complete(completion(max_tokens=12, num_alternatives=3))
    assert (result.text, result.num_tokens, result.num_forwards) == (plain.text, 12, result.num_forwards)
    assert len({result.text, *result.alternatives}) == 4
    # What came of it stays in the prefix cache: a wrong key there would change a later answer.
    assert (await client.complete(completion(max_tokens=12))).text == plain.text
    again = await client.complete(completion(max_tokens=12, num_alternatives=3))
    assert again.alternatives == result.alternatives


@pytest.mark.parametrize("policy", [Policy.AUTOREGRESSIVE, Policy.VERIFIED])
async def test_the_policy_and_the_drafts_change_no_alternative(client: AsyncEngine, policy: Policy) -> None:
    texts = set()
    for use_lookup in (True, False):
        decoding = DecodingParams(policy=policy, use_lookup=use_lookup)
        request = completion("abc = abc + abc\n" * 4, max_tokens=16, decoding=decoding, num_alternatives=3)
        texts.add((await client.complete(request)).alternatives)
    assert len(texts) == 1


async def test_a_deadline_among_the_alternatives_keeps_the_answer(client: AsyncEngine) -> None:
    await client.complete(completion(max_tokens=1))
    decoding = DecodingParams(policy=Policy.AUTOREGRESSIVE, use_lookup=False)
    whole = await client.complete(completion(max_tokens=60, decoding=decoding))
    deadline_ms = int(whole.timings.total_ms * 2.5)
    request = completion(max_tokens=60, decoding=decoding, num_alternatives=8, deadline_ms=deadline_ms)
    result = await client.complete(request)
    assert (result.text, result.finish_reason) == (whole.text, FinishReason.LENGTH)
    assert len(result.alternatives) < 8


async def test_alternatives_take_no_more_time_than_they_may(client: AsyncEngine) -> None:
    await client.complete(completion(max_tokens=1))
    decoding = DecodingParams(policy=Policy.AUTOREGRESSIVE, use_lookup=False)
    whole = await client.complete(completion(max_tokens=60, decoding=decoding))
    request = completion(max_tokens=60, decoding=decoding, num_alternatives=8, alternatives_ms=1)
    result = await client.complete(request)
    assert (result.text, result.finish_reason, result.alternatives) == (whole.text, FinishReason.LENGTH, ())


async def test_a_warm_up_steps_aside_for_a_request(client: AsyncEngine) -> None:
    """It holds the keys and values of the same text: a key stroke meanwhile must find them in the cache."""
    context = "value = compute(1, 2, 3)\n" * 70
    await client.complete(completion(context, max_tokens=1))
    warm_up = asyncio.create_task(client.warm(WarmRequest(completion=completion(context + "a" * 300, max_tokens=1))))
    await asyncio.sleep(0)
    result = await client.complete(completion(context + "a", max_tokens=1))
    assert result.num_computed_tokens <= 300
    await warm_up


async def test_an_edit_streams_frames_then_its_result(client: AsyncEngine) -> None:
    items = [item async for item in client.edit(EditRequest(selection="a = 1\n", instruction="rename", max_tokens=30))]
    assert all(isinstance(item, PreviewFrame) for item in items[:-1])
    assert len(items) > 2
    result = items[-1]
    assert isinstance(result, Result)
    settled = [item.settled for item in items if isinstance(item, PreviewFrame)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(settled))


async def test_the_decoder_of_an_edit_knows_what_it_starts_from(
    client: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[DecodingTask] = []

    def make(*arguments: Any, **more: Any) -> BlockDecoder:
        tasks.append(arguments[3])
        return BlockDecoder(*arguments, **more)

    monkeypatch.setattr(job, "BlockDecoder", make)
    await client.complete(completion(max_tokens=1))
    async for _ in client.edit(EditRequest(selection="ab\n", instruction="do", max_tokens=1)):
        pass
    assert [bytes(task.original) for task in tasks] == [b"", bytes(tiny_tokenizer().encode("ab\n```").ids)]


def test_a_cancel_costs_at_most_one_forward(engine: Engine) -> None:
    for _ in range(20):
        first = engine.submit(completion(max_tokens=1000, decoding=DecodingParams(policy=Policy.AUTOREGRESSIVE)))
        while first.num_forwards < 3:
            time.sleep(0.001)
        engine.cancel(first)
        seen = first.num_forwards
        with pytest.raises(RequestCancelled):
            first.future.result(timeout=10)
        assert first.num_forwards <= seen + 1
    # The pool of caches is whole: the next request answers as ever.
    assert engine.submit(completion(max_tokens=5)).future.result(timeout=10).num_tokens == 5


async def test_cancelling_the_awaiting_task_frees_the_engine(client: AsyncEngine) -> None:
    decoding = DecodingParams(policy=Policy.AUTOREGRESSIVE)
    task = asyncio.create_task(client.complete(completion(max_tokens=1000, decoding=decoding)))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    before = (await client.health()).num_forwards
    await asyncio.sleep(0.2)
    health = await client.health()
    assert health.num_forwards == before
    assert health.num_active == 0


async def test_closing_an_edit_stream_cancels_it(client: AsyncEngine) -> None:
    stream = client.edit(EditRequest(selection="a = 1\n" * 50, instruction="rename", max_tokens=1000))
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    await asyncio.sleep(0.2)
    assert (await client.health()).num_active == 0


async def test_a_deadline_gives_what_is_there(client: AsyncEngine) -> None:
    await client.complete(completion(max_tokens=1))
    decoding = DecodingParams(policy=Policy.AUTOREGRESSIVE, use_lookup=False)
    result = await client.complete(completion(max_tokens=1000, deadline_ms=300, decoding=decoding))
    assert result.finish_reason is FinishReason.DEADLINE
    assert 0 < result.num_tokens < 1000
    assert result.timings.total_ms < 10_000


async def test_a_deadline_before_the_first_token_is_an_error(client: AsyncEngine) -> None:
    with pytest.raises(DeadlineExceeded, match="1 ms"):
        await client.complete(completion("x = 1\n" * 250, deadline_ms=1))


async def test_requests_are_interleaved_and_ghost_text_goes_first(client: AsyncEngine) -> None:
    await client.complete(completion(max_tokens=1))
    order: list[str] = []

    async def edit() -> None:
        async for _ in client.edit(EditRequest(selection="a = 1\n", instruction="rename", max_tokens=200)):
            pass
        order.append("edit")

    async def complete(name: str) -> None:
        await client.complete(completion(max_tokens=20))
        order.append(name)

    running = asyncio.create_task(edit())
    await asyncio.sleep(0.05)
    await asyncio.gather(complete("first"), complete("second"))
    await running
    assert order[-1] == "edit"


async def test_a_full_queue_is_refused(checkpoint: Path) -> None:
    engine = Engine(EngineConfig(model=str(checkpoint), dtype="float32", max_queued=2))
    engine.start()
    jobs = [engine.submit(completion(max_tokens=500)) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        engine.submit(completion())
    engine.close()
    wait([job.future for job in jobs], timeout=10)
    assert all(job.future.done() for job in jobs)
    with pytest.raises(Closed):
        engine.submit(completion())


@pytest.mark.parametrize("num_lines", [0, 1, 5000])
async def test_documents_of_any_size_are_answered(client: AsyncEngine, num_lines: int) -> None:
    text = "value = compute(1, 2, 3)\n" * num_lines
    result = await client.complete(CompletionRequest(prefix=text, suffix=text, max_tokens=4))
    assert result.num_tokens == 4
    assert result.num_prompt_tokens <= 2048
    assert bool(result.notice) == (num_lines == 5000)


async def test_one_endless_line_is_answered(client: AsyncEngine) -> None:
    result = await client.complete(CompletionRequest(prefix="x" * 300_000, max_tokens=4))
    assert result.num_tokens == 4


async def test_an_edit_that_does_not_fit_is_refused_with_figures(client: AsyncEngine) -> None:
    with pytest.raises(ContextTooLong, match=r"take \d+ tokens .* select fewer lines"):
        async for _ in client.edit(EditRequest(selection="value = 1\n" * 500, instruction="rename")):
            pass


async def test_what_a_checkpoint_cannot_do_is_said(client: AsyncEngine) -> None:
    with pytest.raises(CheckpointError, match="not trained for them"):
        await client.complete(completion(decoding=DecodingParams(policy=Policy.CONFIDENCE)))
    with pytest.raises(InvalidRequest, match="not served here"):
        await client.complete(completion(model="gpt-9"))


async def test_a_missing_model_is_reported_by_every_request(tmp_path: Path) -> None:
    client = AsyncEngine(EngineConfig(model=str(tmp_path / "nothing")))
    client.start()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="nothing"):
            await client.complete(completion())
    assert (await client.health()).status == "failed"
    await client.aclose()


def test_an_idle_engine_sleeps(engine: Engine) -> None:
    engine.submit(completion(max_tokens=2)).future.result(timeout=10)
    used = []
    for _ in range(30):  # while it is idle it measures its forwards first
        before = time.process_time()
        threading.Event().wait(1.0)
        used.append(time.process_time() - before)
        if used[-1] < 0.1:
            return
    raise AssertionError(f"seconds of the processor in each second: {used}")


def test_an_answer_is_at_most_half_of_a_small_model_s_context(tmp_path: Path) -> None:
    """Also where the engine's own bound on contexts is above the model's: more is cut, not refused."""
    checkpoint = save_tiny_checkpoint(tmp_path / "small", max_position_embeddings=128)
    engine = Engine(EngineConfig(model=str(checkpoint), dtype="float32", max_context_tokens=8192))
    engine.start()
    try:
        request = CompletionRequest(prefix="x = ", max_tokens=1000, stop_at_scope=False)
        result = engine.submit(request).future.result(timeout=60)
        assert (result.num_tokens, result.finish_reason) == (64, FinishReason.LENGTH)
    finally:
        engine.close()
