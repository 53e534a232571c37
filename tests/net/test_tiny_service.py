"""A real `unmask serve` process that logs all it can: many typists first, then everything that can be sent.

The office day is a short one; long ones are run by hand (bench/typists.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import msgpack
import pytest
from bench.typists import measure
from helpers.tiny_service import TOKEN, TinyService, serve_tiny_model

from diffusion_core.errors import UnmaskError
from diffusion_core.net.protocol import CONTENT_TYPE, PROTOCOL_VERSION, encode
from diffusion_core.requests import CompletionRequest, EditRequest, Snippet, WarmRequest

CANARY = "kanarienvogel"
TEXT = f"def {CANARY}():\n    return '{CANARY}'\n"
HEADERS = {"authorization": f"Bearer {TOKEN}", "content-type": CONTENT_TYPE}

COMPLETION = CompletionRequest(
    prefix=TEXT, suffix=f"\n# {CANARY}\n", language=CANARY, path=f"/home/{CANARY}/{CANARY}.py", repository=CANARY,
    snippets=(Snippet(path=f"{CANARY}.py", text=TEXT),), last_suggestion=CANARY, max_tokens=4, id="own-completion",
)  # fmt: skip
EDIT = EditRequest(
    selection=TEXT, instruction=f"rename {CANARY}", before=TEXT, after=TEXT, language=CANARY, path=f"{CANARY}.py",
    snippets=(Snippet(path=f"{CANARY}.py", text=TEXT),), max_tokens=4, id="own-edit",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyService]:
    settings = ['log_format = "json"', 'log_level = "debug"']
    with serve_tiny_model(tmp_path_factory.mktemp("quiet"), settings=settings) as process:
        yield process


def malformed() -> Iterator[bytes]:
    """Bodies that are not what they should be, with canaries where it hurts."""
    payload = msgpack.unpackb(encode(COMPLETION))["d"]
    yield CANARY.encode()
    yield encode(COMPLETION)[:-7]
    yield encode(COMPLETION).replace(b"\xa6prefix", b"\xa6prefox")
    for tag in ("complete", "edit", "warm", CANARY):
        yield pack(tag, payload)
        yield pack(tag, payload, version=CANARY)
        yield pack(tag, {**payload, CANARY: CANARY})
        yield pack(tag, CANARY)
    # A single word would be an id that is as good as any.
    for name in payload:
        for value in (f"{CANARY} {CANARY}", {CANARY: CANARY}):
            yield pack("complete", {**payload, name: value})


def pack(tag: str, payload: Any, version: Any = PROTOCOL_VERSION) -> bytes:
    return msgpack.packb({"v": version, "t": tag, "d": payload})


async def send_everything(server: TinyService) -> None:
    client = server.connect()
    await client.complete(COMPLETION)
    await client.warm(WarmRequest(completion=replace(COMPLETION, id="own-warm")))
    async for _ in client.edit(EDIT):
        pass
    for request in (
        replace(COMPLETION, model=f"/models/{CANARY}"), replace(COMPLETION, deadline_ms=1, max_tokens=100),
        replace(COMPLETION, prefix=TEXT * 300, suffix=TEXT * 300), replace(COMPLETION, num_alternatives=2),
    ):  # fmt: skip
        with contextlib.suppress(UnmaskError):
            await client.complete(request)
    leaving = asyncio.create_task(client.complete(replace(COMPLETION, max_tokens=2000, stop_at_scope=False)))
    await asyncio.sleep(0.3)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await client.aclose()


def send_malformed(server: TinyService) -> list[int]:
    with httpx.Client(base_url=server.url, headers=HEADERS, trust_env=False) as http:
        statuses = [
            http.post(f"/v1/{path}", content=body).status_code
            for path in ("complete", "edit") for body in malformed()
        ]  # fmt: skip
        for path in (
            CANARY,
            f"v1/{CANARY}",
            f"v1/complete?{CANARY}={CANARY}",
            f"v1/load?user={CANARY}",
            f"%0a{CANARY}",
        ):
            http.get(f"/{path}")
            http.request(CANARY.upper(), f"/{path}")
        for name in ("authorization", "x-request-id", "traceparent", "origin", "content-type", "accept", "host"):
            http.post("/v1/complete", content=encode(COMPLETION), headers={name: f"{CANARY} {CANARY}"})
            http.get("/metrics", headers={name: f"{CANARY} {CANARY}"})
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        connection.sendall(f"{CANARY} {CANARY}\r\n{CANARY}\r\n\r\n".encode())
        connection.recv(4096)
    return statuses


@pytest.mark.slow
def test_many_typists_get_their_answers_and_leave_nothing_behind(server: TinyService) -> None:
    tokens = server.tokens * 8
    # Three times what it can do, so that requests are dropped by next keys on any machine.
    report = asyncio.run(measure(server.url, tokens, server.process.pid, seconds=3, load=3, capacity_s=1, rest_s=0.5))
    # Three seconds are too short to speak of memory; files, threads, errors and answers are not.
    assert not [failure for failure in report.failures if "memory" not in failure]
    assert report.num_answers >= len(tokens)
    assert report.num_cancelled > 0


@pytest.mark.slow
async def test_nothing_that_was_sent_is_logged_or_measured(server: TinyService) -> None:
    await send_everything(server)
    statuses = await asyncio.to_thread(send_malformed, server)
    assert statuses.count(200) < len(statuses) / 4  # most were refused, and said so
    metrics, load = server.get("/metrics").text, server.get("/v1/load").text
    assert server.stop() == 0
    log = server.log.read_text()
    for shown in (log, metrics, load):
        assert CANARY not in shown.lower()
        assert TOKEN not in shown
    assert " _OTHER /v1/load 405 " in log and 'method="_OTHER"' in metrics  # of a method that is any text
    lines = [line for line in log.splitlines() if "own-completion" in line or "own-edit" in line]
    assert len(lines) >= 3
    check_lines(log)


def check_lines(log: str) -> None:
    """Every line after the greeting is an object; those about requests have ids and figures."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert len(lines) >= len(log.splitlines()) - 2
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    about = [line for line in lines if line["logger"].endswith("access_log")]
    assert all("request" in line and "status" in line and "outcome" in line for line in about)
    edit = next(line for line in about if line["request"] == "own-edit")
    assert edit["route"] == "/v1/edit"
    assert edit["user"] == "owner"
    assert edit["num_forwards"] > 0
    assert edit["total_ms"] >= edit["denoise_ms"] > 0
