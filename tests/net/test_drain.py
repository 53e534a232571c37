"""Readiness, and a stop that cuts nobody off. Real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest
from helpers.running_server import run_engine_server
from helpers.scripted_engine import LOAD_VARIABLE, ScriptedEngine
from helpers.serve_process import Served, run_scripted

from diffusion_core.callers import OWNER, Caller
from diffusion_core.config import ServerConfig
from diffusion_core.errors import Closed, EngineError
from diffusion_core.net.activity import Activity
from diffusion_core.net.protocol import WireError, decode
from diffusion_core.net.readiness import Readiness
from diffusion_core.requests import CompletionRequest, EditRequest, PreviewFrame, Result


async def wait_for_active(served: Served, count: int) -> None:
    client = served.connect()
    while (await client.health()).num_active != count:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    await client.aclose()


async def test_a_stop_lets_requests_and_streams_end_and_refuses_new_ones(tmp_path: Path) -> None:
    with run_scripted(tmp_path) as served:
        client = served.connect()
        assert served.get("/readyz").text == "ready"
        completion = asyncio.create_task(client.complete(CompletionRequest(prefix="abc", max_tokens=80)))

        async def edit() -> list[PreviewFrame | Result]:
            request = EditRequest(selection="abcd", instruction="go", max_tokens=80)
            return [item async for item in client.edit(request)]

        editing = asyncio.create_task(edit())
        await wait_for_active(served, 2)
        served.process.send_signal(signal.SIGTERM)
        served.wait_for_log("2 requests may end within 20 s")
        ready = served.get("/readyz")
        assert (ready.status_code, ready.text) == (503, "draining")
        assert served.get("/livez").status_code == 200
        refused = served.post("/v1/complete", CompletionRequest(prefix="abc", max_tokens=1))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        error = decode(refused.content, WireError)
        assert (error.code, error.retryable) == ("closed", True)
        assert (await completion).text == "cba"
        assert isinstance((await editing)[-1], Result)
        assert served.process.wait(10) == 0
        await client.aclose()


async def test_who_does_not_end_in_time_is_told(tmp_path: Path) -> None:
    with run_scripted(tmp_path, drain_s=0.3) as served:
        client = served.connect()
        endless = asyncio.create_task(client.complete(CompletionRequest(prefix="abc", max_tokens=8000)))
        await wait_for_active(served, 1)
        began = time.monotonic()
        served.process.terminate()
        with pytest.raises(Closed):
            await endless
        assert served.process.wait(10) == 0
        assert 0.3 < time.monotonic() - began < 10
        assert "1 requests did not end in time" in served.log
        await client.aclose()


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with run_scripted(tmp_path, drain_s=60) as served:
        client = served.connect()
        endless = asyncio.create_task(client.complete(CompletionRequest(prefix="abc", max_tokens=8000)))
        await wait_for_active(served, 1)
        served.process.terminate()
        served.wait_for_log("1 requests may end")
        began = time.monotonic()
        served.process.terminate()
        assert served.process.wait(10) == 0
        assert time.monotonic() - began < 10
        await asyncio.gather(endless, return_exceptions=True)
        await client.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of that kind")
def test_closing_the_terminal_stops_a_server_that_was_started_in_it(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    with run_scripted(tmp_path, stdin=theirs) as served:
        served.process.send_signal(signal.SIGHUP)
        assert served.process.wait(10) == 0
    for end in (ours, theirs):
        os.close(end)


def test_not_ready_until_the_model_is_loaded(tmp_path: Path) -> None:
    with run_scripted(tmp_path, {LOAD_VARIABLE: "1"}) as served:
        # No token: a probe has none.
        answer = httpx.get(f"{served.url}/readyz", trust_env=False)
        assert (answer.status_code, answer.text) == (503, "loading")
        assert httpx.get(f"{served.url}/livez", trust_env=False).status_code == 200
        served.wait_ready()


class _Part:
    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def identify(self, authorization: str) -> Caller:
        return OWNER

    async def why_not_ready(self) -> str:
        if self.reason == "hang":
            await asyncio.sleep(60)
        return self.reason


async def test_parts_that_report_readiness_are_asked() -> None:
    part = _Part("database")
    readiness = Readiness(ScriptedEngine(), Activity(), part, object())
    assert await readiness.why_not_ready() == "database"
    part.reason = ""
    assert await readiness.why_not_ready() == ""


async def test_a_part_that_hangs_is_unresponsive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusion_core.net.readiness._TIMEOUT_S", 0.05)
    assert await Readiness(ScriptedEngine(), Activity(), _Part("hang")).why_not_ready() == "unresponsive"


async def test_an_engine_that_failed_is_not_ready() -> None:
    engine = ScriptedEngine(load_error=EngineError("secret detail"))
    engine.start()
    await asyncio.sleep(0.01)
    assert await Readiness(engine, Activity()).why_not_ready() == "failed"
    await engine.aclose()


def test_strangers_do_not_keep_an_idle_engine_alive() -> None:
    with run_engine_server(ScriptedEngine()) as server:
        before = server.activity.idle_s
        time.sleep(0.05)
        assert httpx.post(f"{server.url}/v1/complete", trust_env=False).status_code == 401
        assert server.activity.idle_s > before


def test_a_negative_drain_is_refused() -> None:
    with pytest.raises(Exception, match=r"server\.drain_s"):
        ServerConfig(drain_s=-1)
