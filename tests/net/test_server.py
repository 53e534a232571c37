"""The server over a real socket: who gets in, what is refused, and that work ends with its client."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from helpers.running_server import TOKEN, RunningServer, run_engine_server, wait_until
from helpers.scripted_engine import ScriptedEngine

from diffusion_core.decoding_report import DecodingReport
from diffusion_core.errors import (
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    UnmaskError,
)
from diffusion_core.net.protocol import CONTENT_TYPE, WireError, decode, encode
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest

CANARY = "canary_4711_code"
BEARER = {"authorization": f"Bearer {TOKEN}", "content-type": CONTENT_TYPE}


@pytest.fixture(scope="module")
def refusing() -> Iterator[RunningServer]:
    """One server for all tests in which no request reaches the engine."""
    engine = ScriptedEngine()
    with run_engine_server(engine, max_request_bytes=100_000) as running:
        yield running
    assert engine.num_forwards == 0


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def server(engine: ScriptedEngine) -> Iterator[RunningServer]:
    with run_engine_server(engine, max_request_bytes=100_000) as running:
        yield running


def body(**fields: object) -> bytes:
    return encode(CompletionRequest(**{"prefix": "abc", "max_tokens": 1, **fields}))


def post(server: RunningServer, path: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/{path}", headers=BEARER, content=content, trust_env=False)


async def test_complete_edit_warm_and_health(engine: ScriptedEngine, server: RunningServer) -> None:
    client = server.connect()
    request = CompletionRequest(prefix="abc", max_tokens=2)
    result = await client.complete(request)
    assert (result.text, result.id, result.num_forwards) == ("cba", request.id, 2)
    items = [item async for item in client.edit(EditRequest(selection="abcd", instruction="go", max_tokens=3))]
    assert [item.settled for item in items[:-1] if isinstance(item, PreviewFrame)] == ["", "a", "ab"]
    assert isinstance(items[-1], Result)
    warm = WarmRequest(completion=request)
    await client.warm(warm)
    assert engine.warmed == [warm]
    assert (await client.health()).status == "ready"
    await client.aclose()


async def test_reports_of_decoding_are_told_to_those_who_ask(engine: ScriptedEngine, server: RunningServer) -> None:
    engine.decoding = (DecodingReport(model="m", num_rounds=3),)
    for query, expected in (("", ()), ("?decoding", engine.decoding), ("?decoding=1&more", engine.decoding)):
        async with httpx.AsyncClient(headers=BEARER, trust_env=False) as plain:
            answer = await plain.get(f"{server.url}/v1/health{query}")
        assert decode(answer.content, Health).decoding == expected
    client = server.connect()
    assert (await client.health()).decoding == engine.decoding
    await client.aclose()


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xe9"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "complete"), ("POST", "edit"), ("GET", "health")])
def test_without_the_token_nobody_gets_in(
    refusing: RunningServer, authorization: str | None, method: str, path: str
) -> None:
    headers = [(b"content-type", CONTENT_TYPE.encode())]
    if authorization is not None:
        headers.append((b"authorization", authorization.encode("latin-1")))
    answer = httpx.request(method, f"{refusing.url}/v1/{path}", headers=headers, content=body(), trust_env=False)
    assert answer.status_code == 401
    assert decode(answer.content, WireError).code == "unauthorized"


def test_unknown_paths_ask_for_the_token_first(refusing: RunningServer) -> None:
    assert httpx.get(f"{refusing.url}/v1/secret", trust_env=False).status_code == 401
    assert httpx.get(f"{refusing.url}/v1/secret", headers=BEARER, trust_env=False).status_code == 404
    assert httpx.get(f"{refusing.url}/v1/complete", headers=BEARER, trust_env=False).status_code == 405


def test_livez_says_ok_and_nothing_else(refusing: RunningServer) -> None:
    answer = httpx.get(f"{refusing.url}/livez", trust_env=False)
    assert (answer.status_code, answer.text) == (200, "ok")


@pytest.mark.parametrize("path", ["/livez", "/v1/health"])
def test_web_pages_are_refused_even_with_the_token(refusing: RunningServer, path: str) -> None:
    answer = httpx.get(f"{refusing.url}{path}", headers={**BEARER, "origin": "http://localhost:3000"}, trust_env=False)
    assert answer.status_code == 403


def test_a_body_that_says_it_is_too_large_is_refused_unread(refusing: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", int(refusing.url.rpartition(":")[2]))) as connection:
        head = f"POST /v1/complete HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n"
        head += f"content-type: {CONTENT_TYPE}\r\ncontent-length: 1000000000\r\n\r\n"
        connection.sendall(head.encode())
        connection.settimeout(5)
        assert b"413" in connection.recv(100)


async def test_a_body_that_turns_out_too_large_is_refused_while_it_arrives(refusing: RunningServer) -> None:
    num_sent = 0

    async def endless() -> object:
        nonlocal num_sent
        for _ in range(200):  # 2 MB, in chunks without a length
            num_sent += 10_000
            yield b"x" * 10_000

    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{refusing.url}/v1/complete", headers=BEARER, content=endless())
    assert answer.status_code == 413
    assert "server.max_request_bytes" in decode(answer.content, WireError).message


async def test_a_5_mb_document_gets_a_clear_error_and_the_connection_stays_usable(server: RunningServer) -> None:
    client = server.connect()
    with pytest.raises(ContextTooLong, match=r"more than 100000 bytes \(server\.max_request_bytes\)"):
        await client.complete(CompletionRequest(prefix="x" * 5_000_000, max_tokens=1))
    assert (await client.complete(CompletionRequest(prefix="ab", max_tokens=1))).text == "ba"
    await client.aclose()


def test_a_body_of_another_type_is_refused(refusing: RunningServer) -> None:
    headers = {**BEARER, "content-type": "application/json"}
    answer = httpx.post(f"{refusing.url}/v1/complete", headers=headers, content=b"{}", trust_env=False)
    assert answer.status_code == 400
    assert "content-type" in decode(answer.content, WireError).message


@pytest.mark.parametrize("content", [b"", b"{}", body()[:-1], body() + body(), b"\xc1" * 100])
def test_a_damaged_body_is_refused_with_a_typed_error(refusing: RunningServer, content: bytes) -> None:
    answer = httpx.post(f"{refusing.url}/v1/complete", headers=BEARER, content=content, trust_env=False)
    assert answer.status_code == 400
    assert decode(answer.content, WireError).code == "protocol_mismatch"


async def test_a_client_that_leaves_stops_the_work_within_a_forward(
    engine: ScriptedEngine, server: RunningServer
) -> None:
    engine.forward_s = 1.5
    client = server.connect()
    task = asyncio.create_task(client.complete(CompletionRequest(prefix="abc", max_tokens=8000)))
    await asyncio.to_thread(wait_until, lambda: engine.num_forwards >= 1)
    num_forwards = engine.num_forwards
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1.2  # the caller does not wait for the engine
    await asyncio.to_thread(wait_until, lambda: engine.num_cancelled == 1)
    assert engine.num_forwards <= num_forwards + 1
    assert engine.num_active == 0
    # The next request on the same client works.
    engine.forward_s = 0.01
    assert (await client.complete(CompletionRequest(prefix="ab", max_tokens=1))).text == "ba"
    await client.aclose()


async def test_a_client_that_leaves_during_a_warm_up_stops_it(engine: ScriptedEngine, server: RunningServer) -> None:
    engine.forward_s = 30
    client = server.connect()
    task = asyncio.create_task(client.warm(WarmRequest(completion=CompletionRequest(prefix="abc"))))
    await asyncio.to_thread(wait_until, lambda: engine.num_active == 1)
    task.cancel()
    await asyncio.to_thread(wait_until, lambda: engine.num_cancelled == 1)
    await client.aclose()


async def test_frames_arrive_one_by_one(engine: ScriptedEngine, server: RunningServer) -> None:
    engine.forward_s = 0.3
    client = server.connect()
    delays = []
    async for item in client.edit(EditRequest(selection="abcd", instruction="go", max_tokens=4)):
        if isinstance(item, PreviewFrame):
            delays.append(time.monotonic() - float(item.unsettled))  # the engine wrote when it made the frame
    assert len(delays) == 4
    assert max(delays) < 0.25
    await client.aclose()


async def test_leaving_an_edit_early_stops_it(engine: ScriptedEngine, server: RunningServer) -> None:
    client = server.connect()
    items = client.edit(EditRequest(selection="abcd", instruction="go", max_tokens=8000))
    async for _ in items:
        break
    await items.aclose()
    await asyncio.to_thread(wait_until, lambda: engine.num_cancelled >= 1 and engine.num_active == 0)
    num_forwards = engine.num_forwards
    await asyncio.sleep(0.1)
    assert engine.num_forwards == num_forwards
    await client.aclose()


async def test_cancelling_the_reader_of_an_edit_stops_it(engine: ScriptedEngine, server: RunningServer) -> None:
    client = server.connect()

    async def read() -> None:
        async for _ in client.edit(EditRequest(selection="abcd", instruction="go", max_tokens=8000)):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(wait_until, lambda: engine.num_forwards >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until, lambda: engine.num_cancelled >= 1 and engine.num_active == 0)
    await client.aclose()


async def test_errors_keep_their_class_and_status(server: RunningServer) -> None:
    client = server.connect()
    with pytest.raises(Overloaded, match="64 requests are waiting") as caught:
        await client.complete(CompletionRequest(prefix="abc", model="busy"))
    assert caught.value.retryable
    assert post(server, "complete", body(model="busy")).status_code == 503
    with pytest.raises(DeadlineExceeded):
        await client.complete(CompletionRequest(prefix="abc", model="late", deadline_ms=10))
    with pytest.raises(Overloaded, match="stopped half way"):
        async for _ in client.edit(EditRequest(selection="abcd", instruction="go", model="busy", max_tokens=5)):
            pass
    await client.aclose()


async def test_an_engine_that_ignores_the_deadline_is_stopped(engine: ScriptedEngine, server: RunningServer) -> None:
    client = server.connect()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="after 100 ms"):
        await client.complete(CompletionRequest(prefix="abc", max_tokens=8000, deadline_ms=100))
    assert time.monotonic() - began < 2
    assert engine.num_active == 0
    with pytest.raises(DeadlineExceeded):
        async for _ in client.edit(EditRequest(selection="a", instruction="go", max_tokens=8000, deadline_ms=100)):
            pass
    await client.aclose()


async def test_an_edit_without_a_result_is_an_error(server: RunningServer) -> None:
    client = server.connect()
    with pytest.raises(UnmaskError, match="without a result"):
        async for _ in client.edit(EditRequest(selection="a", instruction="go", model="endless", max_tokens=2)):
            pass
    await client.aclose()


async def test_no_code_and_no_token_reaches_the_log(server: RunningServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = server.connect()
    await client.complete(CompletionRequest(prefix=CANARY, max_tokens=1, id="the-id-1"))
    with pytest.raises(UnmaskError, match=r"internal error \(request the-id-2\)") as caught:
        await client.complete(CompletionRequest(prefix=CANARY, model="bug", id="the-id-2"))
    assert CANARY not in str(caught.value)
    with pytest.raises(UnmaskError, match="internal error"):
        async for _ in client.edit(EditRequest(selection=CANARY, instruction=CANARY, model="bug", max_tokens=3)):
            pass
    bad = encode(CompletionRequest(prefix=CANARY)).replace(b"\xa6prefix", b"\xa6prefox")
    for path in ("complete", f"complete?{CANARY}", CANARY):
        post(server, path, bad)
    with pytest.raises(InvalidRequest):
        await client.complete(CompletionRequest(prefix="a", id=f"{CANARY} x"))
    await client.aclose()
    # The access log is off in the real server (test_launcher looks at its files); pytest turns every logger on.
    others = ("httpcore", "httpx", "uvicorn.access")
    ours = [record for record in caplog.records if not record.name.startswith(others)]
    log = "\n".join(logging.Formatter().format(record) for record in ours)
    assert CANARY not in log
    assert TOKEN not in log
    assert "the-id-1 POST /v1/complete 200 in" in log
    assert "RuntimeError at scripted_engine.py" in log


async def test_health_checks_are_no_activity(engine: ScriptedEngine, server: RunningServer) -> None:
    client = server.connect()
    await client.complete(CompletionRequest(prefix="a", max_tokens=1))
    await asyncio.sleep(0.2)
    await client.health()
    assert server.activity.idle_s >= 0.2
    engine.forward_s = 1.0
    task = asyncio.create_task(client.complete(CompletionRequest(prefix="a", max_tokens=1)))
    await asyncio.to_thread(wait_until, lambda: engine.num_active == 1)
    assert server.activity.idle_s == 0
    await task
    assert server.activity.idle_s < 0.9
    await client.aclose()


async def test_many_clients_at_once(engine: ScriptedEngine, server: RunningServer) -> None:
    client = server.connect()
    requests = [CompletionRequest(prefix=f"{index:03}", max_tokens=2) for index in range(50)]
    results = await asyncio.gather(*(client.complete(request) for request in requests))
    assert [(r.id, r.text) for r in results] == [(r.id, r.prefix[::-1]) for r in requests]
    await client.aclose()
