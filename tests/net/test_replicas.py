"""Two replicas of a tiny model on Ray Serve behind `unmask serve --ray`: one cluster for all of it, real processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx
import kubernetes_validate
import pytest
import yaml
from helpers.answering_engine import TOKEN
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.config import EngineConfig, RayConfig
from diffusion_core.errors import ConfigError, UnmaskError
from diffusion_core.net.deferred import DeferredEngine
from diffusion_core.net.remote import RemoteEngine
from diffusion_core.net.serve import make_engine
from diffusion_core.requests import CompletionRequest, EditRequest, Result

pytest.importorskip("ray", reason="needs unmask[ray]")

from helpers.ray_server import RayServer, run_ray_server

# Of Ray's own schemas.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field` is deprecated")

MANIFEST = Path(__file__).resolve().parents[2] / "diffusion_core/deploy/kubernetes/ray-service.yaml"
PREFIX = "def add(a, b):\n    return a + b\n\n" * 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayServer]:
    with run_ray_server(tmp_path_factory.mktemp("ray"), model) as server:
        yield server


@asynccontextmanager
async def connected(server: RayServer) -> AsyncIterator[RemoteEngine]:
    client = RemoteEngine(server.config())
    give_up = time.monotonic() + 90
    while True:
        assert server.process.poll() is None and time.monotonic() < give_up, server.log.read_text()[-3000:]
        with suppress(UnmaskError):
            if (await client.health()).status == "ready":
                break
        await asyncio.sleep(0.1)
    try:
        yield client
    finally:
        await client.aclose()


def ask(path: str, tail: str = "", max_tokens: int = 8) -> CompletionRequest:
    return CompletionRequest(
        prefix=f"# {path}\n{PREFIX}{tail}", path=path, max_tokens=max_tokens, stop_at_scope=False, deadline_ms=30_000
    )


@pytest.mark.slow
async def test_answers_are_those_of_a_single_engine_and_prompts_are_found_again(server: RayServer, model: Path) -> None:
    single = DeferredEngine(lambda: make_engine(EngineConfig(model=str(model), edit_model=str(model), device="cpu")))
    single.start()
    async with connected(server) as client:
        for number in range(6):
            first, second = ask(f"f{number}.py"), ask(f"f{number}.py", tail="x")
            for request in (first, second):
                answer, expected = await client.complete(request), await single.complete(request)
                assert (answer.text, answer.num_prompt_tokens) == (expected.text, expected.num_prompt_tokens)
            # The second one finds the prompt of the first, so it went to the same replica.
            assert answer.num_reused_tokens > answer.num_prompt_tokens / 2
        edit = EditRequest(selection="abc\n", instruction="go", max_tokens=16, path="f0.py")
        items = [item async for item in client.edit(edit)]
        expected_items = [item async for item in single.edit(edit)]
        assert len(items) > 1 and isinstance(items[-1], Result) and isinstance(expected_items[-1], Result)
        assert items[-1].text == expected_items[-1].text
    await single.aclose()


async def test_leaving_an_edit_stops_the_work_in_the_replica(server: RayServer) -> None:
    async with connected(server) as client:
        before = await client.health()
        assert before.device == "2 x cpu" and before.num_active == 0
        items = client.edit(EditRequest(selection="abc\n" * 20, instruction="go", max_tokens=3000, path="f0.py"))
        async with aclosing(items):
            await anext(items)
            assert (await client.health()).num_active == 1
        began = time.monotonic()
        while (await client.health()).num_active:
            assert time.monotonic() - began < 3, "the replica goes on with work that nobody waits for"
            await asyncio.sleep(0.05)


async def test_cancelling_a_completion_stops_the_work_in_the_replica(server: RayServer) -> None:
    async with connected(server) as client:
        # One that ended before its cancel arrived says nothing: another one is begun.
        for number in range(10):
            before = (await client.health()).num_completed
            working = asyncio.create_task(client.complete(ask(f"c{number}.py", max_tokens=128)))
            while not working.done() and not (await client.health()).num_active:
                pass
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            began = time.monotonic()
            while (await client.health()).num_active:
                assert time.monotonic() - began < 3, "the replica goes on with work that nobody waits for"
                await asyncio.sleep(0.02)
            if working.cancelled() and (await client.health()).num_completed == before:
                return
        pytest.fail("all were computed to their ends")


async def test_a_new_checkpoint_is_taken_by_every_replica(server: RayServer) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with connected(server), httpx.AsyncClient(headers=headers) as http:
        answer = await http.post(f"{server.config().url}/v1/admin/reload", timeout=30)
        assert answer.status_code == 200, answer.text
        assert {model["state"] for model in answer.json()["models"]} == {"replaced"}


async def test_a_replica_killed_under_load_loses_no_request(server: RayServer) -> None:
    async def work(client: RemoteEngine, number: int, until: float) -> int:
        done = 0
        while time.monotonic() < until:
            request = ask(f"g{number}.py", tail="y" * (done % 20))
            result = await client.complete(request)
            assert result.id == request.id and result.num_prompt_tokens > 0
            done += 1
        return done

    async with connected(server) as client:
        replicas = server.replicas()
        assert len(replicas) == 2
        until = time.monotonic() + 3
        workers = [asyncio.create_task(work(client, number, until)) for number in range(6)]
        await asyncio.sleep(0.7)
        replicas[0].kill()
        assert min(await asyncio.gather(*workers)) > 1


def test_sigterm_ends_everything_that_was_started(server: RayServer) -> None:
    server.note_processes()
    code, seconds = server.stop()
    assert code == 0, server.log.read_text()[-3000:]
    assert seconds < 30
    assert server.survivors() == []
    assert "a-token" not in server.log.read_text()


def test_the_manifest_is_what_ray_and_this_version_understand() -> None:
    from ray.serve.schema import ServeDeploySchema

    from diffusion_core.net.ray_app import build

    manifest = yaml.safe_load(MANIFEST.read_text())
    serve_config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    (application,) = serve_config.applications
    assert application.import_path == "diffusion_core.net.ray_app:build"
    args = application.args
    assert isinstance(args, dict)
    build(args)
    cluster = manifest["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, "1.32.0", strict=True)
    for wrong, setting in (
        ({"motor": {}}, "args.motor is no setting"),
        ({"engine": {"modle": "x"}}, "args.engine holds a setting"),
        ({"server": {"token": "s3cret"}}, "use server.token_file"),
        ({"ray": {"min_replicas": 3, "max_replicas": 2}}, "ray.max_replicas is 2"),
    ):
        with pytest.raises(ConfigError) as caught:
            build(args | wrong)
        assert setting in str(caught.value) and "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"ray\.min_replicas is 0"):
        RayConfig(min_replicas=0)
