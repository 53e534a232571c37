"""What the page asks of the server: its files, its session, and answers with all that led to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.running_server import TOKEN, RunningServer, run_engine_server, wait_until
from helpers.scripted_engine import ScriptedEngine
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.callers import Caller, Scope
from diffusion_core.config import EngineConfig, ServerConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.net.pages import PAGE_PATHS
from diffusion_core.net.server import create_app

BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncEngine:
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")
    made = AsyncEngine(EngineConfig(model=str(folder), edit_model=str(folder), dtype="float32"))
    made.start()
    return made


@pytest.fixture(scope="module")
def server(engine: AsyncEngine) -> Iterator[RunningServer]:
    with run_engine_server(engine, max_request_bytes=100_000) as running:
        yield running


def ask(server: RunningServer, kind: str, **fields: Any) -> httpx.Response:
    url = f"{server.url}/v1/watch/{kind}"
    return httpx.post(url, headers=BEARER, json=fields, timeout=60, trust_env=False)


def test_a_completion_streams_its_forwards_as_lines(server: RunningServer) -> None:
    answer = ask(server, "complete", prefix="a = 1\n" * 8, max_tokens=9, decoding={"policy": "autoregressive"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["t"] for line in lines[:-1]] == ["frame"] * (len(lines) - 1)
    assert lines[-1]["t"] == "result"
    assert lines[-1]["num_forwards"] == 9
    assert sum(len(line.get("settled", [])) for line in lines) == 9
    assert lines[-1]["tokens_per_forward"] == 1.0


def test_an_edit_streams_as_well(server: RunningServer) -> None:
    lines = ask(server, "edit", selection="a = 1\n", instruction="go on", max_tokens=5).text.splitlines()
    assert json.loads(lines[-1])["num_tokens"] == 5


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "not valid JSON"),
        (b'{"prefix": "\\ud800"}', "not valid JSON"),
        (b'{"prefix": "a", "seed": 1}', "unknown field seed"),
        (b'{"prefix": 1}', "complete.prefix: text expected"),
        (b'{"prefix": "a", "decoding": {"policy": "best"}}', "complete.decoding.policy: one of"),
        (b"[]", "map expected"),
    ],
)
def test_a_wrong_body_is_refused_with_its_reason(server: RunningServer, body: bytes, part: str) -> None:
    headers = {**BEARER, "content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/watch/complete", headers=headers, content=body, trust_env=False)
    assert answer.status_code == 400
    error = answer.json()
    assert (error["t"], error["code"]) == ("error", "invalid_request")
    assert part in error["message"]


def test_a_client_that_leaves_stops_the_work(server: RunningServer) -> None:
    fields = {"prefix": "x = 1\n" * 20, "max_tokens": 3000, "stop_at_scope": False}
    with httpx.stream(
        "POST", f"{server.url}/v1/watch/complete", headers=BEARER, json=fields, timeout=60, trust_env=False
    ) as answer:
        next(answer.iter_lines())
    wait_until(lambda: server.activity.idle_s > 0)
    session = httpx.get(f"{server.url}/v1/session", headers=BEARER, trust_env=False).json()
    assert session["status"] == "ready"


def test_the_session_says_who_asks_and_what_answers(server: RunningServer) -> None:
    session = httpx.get(f"{server.url}/v1/session", headers=BEARER, trust_env=False).json()
    assert session["user"] == "owner"
    assert session["scopes"] == sorted(Scope)
    assert session["models"][0]["state"] == "ready"
    stranger = httpx.get(f"{server.url}/v1/session", trust_env=False)
    assert (stranger.status_code, stranger.json()["code"]) == (401, "unauthorized")


def test_an_engine_that_cannot_be_watched_says_so() -> None:
    with run_engine_server(ScriptedEngine()) as running:
        answer = ask(running, "complete", prefix="a")
    assert answer.status_code == 400
    assert "cannot be watched" in answer.json()["message"]


class _Reader:
    """Lets in everybody, for completions only."""

    async def identify(self, authorization: str) -> Caller:
        return Caller(user="reader", space="reader", scopes=frozenset({Scope.COMPLETE}))


@pytest.fixture
async def reader(engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(engine, ServerConfig(), _Reader())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as made:
        yield made


async def test_a_token_without_edits_cannot_watch_one(reader: httpx.AsyncClient) -> None:
    answer = await reader.post("/v1/watch/edit", json={"selection": "a", "instruction": "b"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await reader.get("/v1/session")).json()["scopes"] == ["complete"]


@pytest.mark.parametrize("path", sorted(PAGE_PATHS))
def test_the_page_is_public_and_may_load_nothing_else(server: RunningServer, path: str) -> None:
    answer = httpx.get(f"{server.url}{path}", trust_env=False)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(f"{server.url}{path}", headers={"if-none-match": answer.headers["etag"]}, trust_env=False)
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/web/../server.py", "/web/%2e%2e/server.py", "/web/", "/web/js", "/index.html"])
def test_nothing_but_the_files_of_the_page_is_public(server: RunningServer, path: str) -> None:
    assert httpx.get(f"{server.url}{path}", trust_env=False).status_code == 401


def test_the_files_name_no_other_site() -> None:
    folder = Path(create_app.__code__.co_filename).parent / "web"
    for file in folder.rglob("*.*"):
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, file
        assert "<script>" not in text and " style=" not in text, file
