"""How an engine's failures reach OpenAI's client: as the exceptions that it has for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import openai
import pytest
from helpers.running_server import TOKEN, RunningServer, run_asgi, run_engine_server, wait_until
from helpers.scripted_engine import ScriptedEngine
from openai import AsyncOpenAI, OpenAI

from diffusion_core.callers import Caller, Scope
from diffusion_core.config import ServerConfig
from diffusion_core.errors import RateLimited
from diffusion_core.net.server import create_app
from diffusion_core.requests import CompletionRequest, Result


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def server(engine: ScriptedEngine) -> Iterator[RunningServer]:
    with run_engine_server(engine, max_request_bytes=100_000) as running:
        yield running


def connect(url: str, **settings: object) -> OpenAI:
    return OpenAI(**{"base_url": f"{url}/v1", "api_key": TOKEN, "max_retries": 0, **settings})  # type: ignore[arg-type]


def test_failures_have_the_classes_of_the_client(server: RunningServer) -> None:
    with connect(server.url) as client:
        with pytest.raises(openai.InternalServerError) as busy:
            client.completions.create(model="busy", prompt="x")
        assert (busy.value.status_code, busy.value.response.headers["retry-after"]) == (503, "1")
        assert busy.value.code == "overloaded"
        with pytest.raises(openai.InternalServerError, match="internal error") as bug:
            client.completions.create(model="bug", prompt="canary")
        assert bug.value.status_code == 500 and "canary" not in str(bug.value)
        with pytest.raises(openai.BadRequestError, match="100000 bytes"):
            client.completions.create(model="", prompt="x" * 200_000)
        with pytest.raises(openai.BadRequestError, match="does not chat"):
            client.chat.completions.create(model="", messages=[{"role": "user", "content": "Hi"}])
        # An engine that does not stream answers a stream in one piece.
        events = list(client.completions.create(model="", prompt="abc", max_tokens=1, stream=True))
        assert "".join(event.choices[0].text for event in events) == "cba"


@pytest.mark.parametrize(
    ("path", "fields", "problem"),
    [
        ("/v1/completions", {f"field_{number}": 1 for number in range(500)}, "the body has 500 problems"),
        ("/v1/completions", {"samplers": [1] * 5000}, "samplers: list should have at most 64"),
        ("/infill", {"response_fields": [1] * 5000}, "response_fields: list should have at most 64"),
        ("/infill", {"samplers": [1] * 5000}, "samplers: list should have at most 64"),
        ("/v1/chat/completions", {"metadata": {str(key): "" for key in range(100)}}, "metadata: dictionary should"),
        # Of parts the first wrong one is named, and there are no others.
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [1] * 5000}]}, "content[0]: input should"),
    ],
)
def test_a_body_of_many_mistakes_is_refused_without_a_list_of_them(
    server: RunningServer, path: str, fields: dict[str, object], problem: str
) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {}
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(f"{server.url}{path}", json={**body, **fields}, headers=headers, trust_env=False)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert problem in message and "; and" not in message


def test_a_busy_engine_is_asked_again_by_the_client_itself(server: RunningServer, engine: ScriptedEngine) -> None:
    asked: list[str] = []

    async def complete(request: CompletionRequest, answer=engine.complete) -> Result:  # type: ignore[no-untyped-def]
        asked.append(request.id)
        if len(asked) == 1:
            raise RateLimited("60 requests a minute", retry_after_s=1.5)
        return await answer(request)  # type: ignore[no-any-return]

    engine.complete = complete  # type: ignore[method-assign]
    with connect(server.url, max_retries=0) as client, pytest.raises(openai.RateLimitError) as limited:
        client.completions.create(model="", prompt="abc", max_tokens=1)
    assert limited.value.response.headers["retry-after"] == "2"
    with connect(server.url, max_retries=2) as client:
        assert client.completions.create(model="", prompt="abc", max_tokens=1).choices[0].text == "cba"


async def test_the_work_ends_when_the_client_gives_up(server: RunningServer, engine: ScriptedEngine) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.completions.create(model="", prompt="x", max_tokens=1000, n=2, temperature=1.0, timeout=0.2)
        await asyncio.to_thread(wait_until, lambda: engine.num_cancelled == 2)
    assert engine.num_active == 0


class Limited:
    """Tokens that say what they allow."""

    async def identify(self, authorization: str) -> Caller:
        scope = Scope(authorization.removeprefix("Bearer "))
        return Caller(user="u", space="u", scopes=frozenset({scope}))


def test_a_token_allows_what_it_was_made_for(engine: ScriptedEngine) -> None:
    with run_asgi(create_app(engine, ServerConfig(), Limited())) as address:
        url = f"http://{address}"
        with connect(url, api_key="edit") as client:
            with pytest.raises(openai.PermissionDeniedError, match="does not allow complete"):
                client.completions.create(model="", prompt="x")
            denied = httpx.post(f"{url}/infill", json={}, headers={"authorization": "Bearer edit"}, trust_env=False)
            assert denied.status_code == 403
        with connect(url, api_key="complete") as client:
            assert client.completions.create(model="", prompt="abc", max_tokens=1).choices[0].text == "cba"
            with pytest.raises(openai.PermissionDeniedError, match="does not allow edit"):
                client.chat.completions.create(model="", messages=[{"role": "user", "content": "Hi"}])
