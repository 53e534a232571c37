"""The launcher with the real engine and a tiny random model: the whole path of a user's machine in miniature."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.config import ClientConfig, EngineConfig
from diffusion_core.errors import CheckpointError, Unreachable
from diffusion_core.net.launcher import LocalEngine
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    FinishReason,
    PreviewFrame,
    Result,
    SamplingParams,
    WarmRequest,
)

CONTEXT = "def add(a, b):\n    return a + b\n" * 8
SHORT = CompletionRequest(prefix=CONTEXT, max_tokens=8, stop_at_scope=False)
# Random text never repeats itself: the answer is still being made when it is cancelled.
LONG = CompletionRequest(
    prefix=CONTEXT, max_tokens=3000, stop_at_scope=False, sampling=SamplingParams(temperature=1.5, seed=1)
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> AsyncIterator[LocalEngine]:
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "state"))
    config = EngineConfig(model=str(checkpoint), edit_model=str(checkpoint), num_threads=1, max_completion_tokens=4096)
    client = LocalEngine(ClientConfig(engine=config, engine_start_timeout_s=60))
    yield client
    await client.stop()
    await client.aclose()


async def wait_for_forwards(engine: LocalEngine, more_than: int) -> int:
    give_up = time.monotonic() + 20
    while (num_forwards := (await engine.health()).num_forwards) <= more_than:
        assert time.monotonic() < give_up, "the engine runs no forwards"
        await asyncio.sleep(0.01)
    return num_forwards


async def test_complete_edit_warm_cancel_and_recover(engine: LocalEngine) -> None:
    """One engine process for all steps: its start (torch) is what takes long."""
    first_began = time.monotonic()
    # It listens and tells its state long before the model is there; the request waits.
    await engine.wait_listening()
    assert (await engine.health()).status == "loading"
    result = await engine.complete(SHORT)
    first_start_s = time.monotonic() - first_began
    assert result.num_tokens > 0
    assert result.finish_reason is FinishReason.LENGTH
    await engine.wait_ready()
    health = await engine.health()
    assert health.status == "ready"
    assert health.models

    # The same context again is found in the prefix cache, through a warm-up too.
    warmed = CompletionRequest(prefix=CONTEXT + "x = ", max_tokens=8, stop_at_scope=False)
    await engine.warm(WarmRequest(completion=warmed))
    again = await engine.complete(warmed)
    assert again.num_reused_tokens > 0.9 * again.num_prompt_tokens

    # An edit streams frames, then its result.
    edit = EditRequest(selection="a = 1\nb = 2\n", instruction="swap", max_tokens=24)
    items = [item async for item in engine.edit(edit)]
    assert isinstance(items[-1], Result)
    assert items[-1].id == edit.id
    assert all(isinstance(item, PreviewFrame) for item in items[:-1])

    # A cancelled request stops the forwards at once; so does leaving an edit.
    task = asyncio.create_task(engine.complete(LONG))
    before = (await engine.health()).num_forwards
    await wait_for_forwards(engine, before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await assert_engine_rests(engine)
    stream = engine.edit(EditRequest(selection="a = 1\n" * 50, instruction="go on", max_tokens=3000))
    async for _ in stream:
        break
    await stream.aclose()
    await assert_engine_rests(engine)

    # Killed in the middle of a request: the caller hears it, and the next request works soon.
    state = engine.files.read_state()
    assert state is not None
    task = asyncio.create_task(engine.complete(LONG))
    await wait_for_forwards(engine, (await engine.health()).num_forwards)
    os.kill(state.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="the engine stopped while working"):
        await task
    assert (await engine.complete(SHORT)).text == result.text
    recovery_s = time.monotonic() - began
    # A machine that is busy with other things takes longer for any start (importing torch).
    assert recovery_s < max(15.0, 2 * first_start_s)


async def assert_engine_rests(engine: LocalEngine) -> None:
    health = await engine.health()
    for _ in range(100):
        if not health.num_active:
            break
        await asyncio.sleep(0.1)
        health = await engine.health()
    assert health.num_active == 0
    await asyncio.sleep(0.2)
    assert (await engine.health()).num_forwards == health.num_forwards


@pytest.mark.parametrize(
    ("model", "message"),
    [("no-such-model", "qwen2.5-coder-0.5b"), ("qwen2.5-coder-0.5b", "unmask pull qwen2.5-coder-0.5b")],
)
async def test_a_model_that_is_not_there_is_told_at_once(
    model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("UNMASK_CACHE_DIR", str(tmp_path / "cache"))
    client = LocalEngine(ClientConfig(engine=EngineConfig(model=model)))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=message):
        await client.wait_ready()
    assert time.monotonic() - began < 10  # it does not import torch first
    await client.aclose()


def copy_damaged(checkpoint: Path, target: Path) -> Path:
    target.mkdir()
    for path in checkpoint.iterdir():
        content = path.read_bytes()
        (target / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    return target


async def test_a_damaged_checkpoint_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "state"))
    damaged = copy_damaged(checkpoint, tmp_path / "damaged")
    client = LocalEngine(ClientConfig(engine=EngineConfig(model=str(damaged)), engine_start_timeout_s=60))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        await client.complete(SHORT)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        await client.wait_ready()
    await client.aclose()
