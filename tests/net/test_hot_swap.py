"""New checkpoints under a running server, with requests all the while: none fails, and each answer is one model's."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.serve_process import Served, run_unmask
from helpers.tiny_models import save_tiny_checkpoint
from safetensors.torch import load_file, save_file

from diffusion_core.callers import Caller, Scope
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.requests import CompletionRequest, EditRequest, Result

PROMPTS = ("def add(a, b):\n", "x = [1, 2, 3]\n", "class Thing:\n")
OLD, NEW = 0, 1  # seeds


def completion(prefix: str) -> CompletionRequest:
    return CompletionRequest(prefix=prefix, suffix="\nend\n", stop_at_scope=False, max_tokens=16)


def edit(max_tokens: int = 400) -> EditRequest:
    return EditRequest(selection="a = 1\nb = 2\n", instruction="rename", max_tokens=max_tokens)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """What each model says to the prompts, and last to the edit, asked without a server."""
    folder = tmp_path_factory.mktemp("references")
    found = {}
    for seed in (OLD, NEW):
        engine = Engine(EngineConfig(model=str(save_tiny_checkpoint(folder / str(seed), seed=seed)), dtype="float32"))
        engine.start()
        jobs = [engine.submit(request) for request in (*map(completion, PROMPTS), edit())]
        found[seed] = [job.future.result(60).text for job in jobs]
        engine.close()
    assert all(old != new for old, new in zip(*found.values(), strict=True))
    return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests: it takes longer to start than to swap."""
    folder = tmp_path_factory.mktemp("served")
    model = save_tiny_checkpoint(folder / "model", seed=OLD)
    config = folder / "unmask.toml"
    config.write_text(f'[engine]\nmodel = "{model}"\ndtype = "float32"\n[server]\nreload_settle_s = 0.4\n')
    with run_unmask(folder, "--config", str(config)) as served:
        served.wait_ready()
        yield served


@pytest.fixture
def served(running: Served, model: Path) -> Served:
    save_tiny_checkpoint(model, seed=OLD)
    assert running.post("/v1/admin/reload").status_code == 200
    return running


@pytest.fixture
def model(running: Served) -> Path:
    return running.log_file.with_name("model")


async def until(is_so: Callable[[], bool], timeout_s: float = 20) -> None:
    give_up = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


class Load:
    """Requests without a pause, each answer checked against both models."""

    def __init__(self, client: HttpEngineClient, answers: dict[int, list[str]]) -> None:
        self.client, self._answers = client, answers
        self.seen: Counter[int] = Counter()
        self.last = OLD

    async def run(self) -> None:
        while True:
            for index, prompt in enumerate(PROMPTS):
                text = (await self.client.complete(completion(prompt))).text
                self.last = next(seed for seed, texts in self._answers.items() if texts[index] == text)
                self.seen[self.last] += 1

    async def wait_for(self, seed: int, timeout_s: float = 20) -> None:
        await until(lambda: self.last == seed, timeout_s)


@contextlib.asynccontextmanager
async def under_load(served: Served, answers: dict[int, list[str]]) -> AsyncIterator[Load]:
    client = served.connect()
    load = Load(client, answers)
    running = [asyncio.create_task(load.run()) for _ in range(3)]
    try:
        yield load
        failed = [task for task in running if task.done()]
        assert not failed, [task.exception() for task in failed]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await client.aclose()


def replace_folder(model: Path, seed: int) -> None:
    """As `unmask` itself and a careful administrator do: a complete folder, renamed into place."""
    save_tiny_checkpoint(model.with_name("next"), seed=seed)
    model.rename(model.with_name("previous"))
    model.with_name("next").rename(model)
    shutil.rmtree(model.with_name("previous"))


def poison(weights: Path) -> None:
    tensors = load_file(weights)
    tensors["layers.1.mlp.down_proj.weight" if "layers.1.mlp.down_proj.weight" in tensors else list(tensors)[-1]][0] = (
        torch.nan
    )
    save_file(tensors, weights)


def truncate(weights: Path) -> None:
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])


def reshape(weights: Path) -> None:
    tensors = load_file(weights)
    name = next(name for name in tensors if tensors[name].dim() == 2)
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, weights)


@pytest.mark.slow
async def test_a_good_checkpoint_takes_over_and_bad_ones_are_refused(
    served: Served, model: Path, answers: dict[int, list[str]]
) -> None:
    async with under_load(served, answers) as load:
        await asyncio.sleep(0.2)
        replace_folder(model, NEW)
        await load.wait_for(NEW)
        damages = ((truncate, "is truncated"), (poison, "not finite"), (reshape, "has shape"))
        num_before = served.log.count("was not replaced")
        for num_refused, (spoil, reason) in enumerate(damages, start=num_before + 1):
            spoil(model / "model.safetensors")
            await until(lambda: served.log.count("was not replaced") == num_refused)  # noqa: B023
            assert reason in served.log.rpartition("was not replaced")[2]
            health = await load.client.health()
            assert health.status == "ready"
            assert health.notices[0].startswith("a new checkpoint is refused, the old one answers: ")
            num_replaced = served.log.count("was replaced")
            save_tiny_checkpoint(model, seed=NEW)
            await until(lambda: served.log.count("was replaced") > num_replaced)  # noqa: B023
            assert (await load.client.health()).notices == ()
        before = load.seen.copy()
        await asyncio.sleep(0.3)
        assert load.seen[OLD] == before[OLD]
        assert load.seen[NEW] > before[NEW]
    served.wait_for_log(" before is freed")


async def test_a_request_under_way_ends_on_the_model_it_began_with(
    served: Served, model: Path, answers: dict[int, list[str]]
) -> None:
    client = served.connect()
    items = client.edit(edit())
    await anext(items)
    save_tiny_checkpoint(model, seed=NEW)
    answer = await asyncio.to_thread(served.post, "/v1/admin/reload")
    assert answer.json() == {"models": [{"name": str(model), "state": "replaced", "detail": ""}]}
    new = await client.complete(completion(PROMPTS[0]))
    assert new.text == answers[NEW][0]
    assert new.num_reused_tokens == 0
    last = [item async for item in items][-1]
    assert isinstance(last, Result)
    assert last.text == answers[OLD][-1]
    truncate(model / "model.safetensors")
    refused = await asyncio.to_thread(served.post, "/v1/admin/reload")
    assert refused.status_code == 409
    assert refused.json()["models"][0]["state"] == "refused"
    assert (await client.complete(completion(PROMPTS[0]))).text == answers[NEW][0]
    await client.aclose()


async def test_only_administrators_reload() -> None:
    from helpers.running_server import run_asgi
    from helpers.scripted_engine import ScriptedEngine

    from diffusion_core.config import ServerConfig
    from diffusion_core.net.server import create_app

    class Everybody:
        async def identify(self, authorization: str) -> Caller:
            scopes = {Scope.ADMIN} if authorization == "admin" else {Scope.COMPLETE, Scope.EDIT}
            return Caller(user="u", space="u", scopes=frozenset(scopes))

    import httpx

    with run_asgi(create_app(ScriptedEngine(), ServerConfig(), Everybody())) as address:
        for who, status in (("admin", 200), ("user", 403)):
            headers = {"authorization": who}
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.post(f"http://{address}/v1/admin/reload", headers=headers)
            assert answer.status_code == status
