"""A local engine that stands in for a remote one, where the user allows it; both are processes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from helpers.local_engines import COMMAND, CONFIG, Local
from helpers.lsp_engine import WrittenEngine, serve_engine
from helpers.remote_process import RemoteProcess, run_remote

from diffusion_core.config import ClientConfig, EngineConfig
from diffusion_core.errors import CheckpointError, Forbidden, RateLimited, Unreachable
from diffusion_core.net import site
from diffusion_core.net.failover import FailoverEngine
from diffusion_core.net.launcher import LocalEngine, connect
from diffusion_core.net.remote import RemoteEngine
from diffusion_core.requests import CompletionRequest, EditRequest, PreviewFrame, Result

REQUEST = CompletionRequest(prefix="x = ", max_tokens=1, deadline_ms=20_000)
EDIT = EditRequest(selection="abc", instruction="go", max_tokens=2, deadline_ms=20_000)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "LOST_AFTER_S", 0.5)
    monkeypatch.setattr(site, "_MAX_PROBE_S", 0.5)


def make(local: Local, config: ClientConfig, engine: EngineConfig = CONFIG.engine) -> tuple[FailoverEngine, Any]:
    """The engine and what it tells, as names of states."""
    told: list[tuple[str, str]] = []
    config = replace(config, engine=engine, fallback="local")

    def make_local(tell: Any) -> LocalEngine:
        made = LocalEngine(config, on_state=tell, command=COMMAND)
        local.engines.append(made)
        return made

    return FailoverEngine(config, make_local, on_state=lambda *state: told.append(state)), told


async def test_a_local_engine_answers_while_the_server_is_away_and_no_longer(local: Local) -> None:
    with run_remote(completions={"x = ": "remote"}) as remote:
        engine, told = make(local, remote.config())
        assert (await engine.complete(REQUEST)).text == "remote"
        assert local.engines == [] and told == []
        remote.kill()
        began = time.monotonic()
        assert (await engine.complete(REQUEST)).text == " = x"
        assert time.monotonic() - began < 15
        assert told[0][0] == "local" and f"because nothing answers at {remote.url}" in told[0][1]
        began = time.monotonic()
        assert (await engine.complete(REQUEST)).text == " = x"
        assert time.monotonic() - began < 2, "nobody waits for a server that is known to be away"
        items = [item async for item in engine.edit(EDIT)]
        assert isinstance(items[-1], Result) and items[-1].text == "go"
        health = await engine.health()
        assert health.status == "ready" and health.notices[0].startswith("Answering locally because")
        remote.start()
        began = time.monotonic()
        while told[-1] != ("remote", ""):
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.05)
        assert (await engine.complete(REQUEST)).text == "remote"
        assert [name for name, _ in told if name in {"local", "remote"}] == ["local", "remote"]
        await engine.aclose()


async def test_an_edit_that_broke_off_is_made_anew_by_the_local_engine(local: Local) -> None:
    with run_remote(edits={"go": "remote" * 100}, forward_s=0.05) as remote:
        engine, _ = make(local, remote.config())
        frames: list[PreviewFrame] = []
        async for item in engine.edit(EDIT):
            if isinstance(item, Result):
                assert item.text == "go"
                break
            frames.append(item)
            if len(frames) == 3:
                remote.kill()
        resets = [number for number, frame in enumerate(frames) if (frame.settled, frame.unsettled) == ("", "abc")]
        assert resets[0] >= 3
        assert not any("remote" in frame.settled for frame in frames[resets[0] :])
        await engine.aclose()


async def test_a_busy_server_and_a_limit_are_no_reason_to_leave(local: Local) -> None:
    for error in (RateLimited("60 a minute"), Forbidden("this token does not allow complete")):
        with serve_engine(WrittenEngine(error=error)) as url:
            engine, told = make(local, ClientConfig(url=url, token="a-token-of-the-tests"))
            with pytest.raises(type(error)):
                await engine.complete(replace(REQUEST, deadline_ms=300))
            assert told == [] and local.engines == []
            await engine.aclose()


async def test_a_server_that_refuses_the_token_is_left_at_once(local: Local) -> None:
    with serve_engine(WrittenEngine()) as url:
        engine, told = make(local, ClientConfig(url=url, token="wrong"))
        assert (await engine.complete(REQUEST)).text == " = x"
        assert "does not accept the token" in told[0][1] and "wrong" not in told[0][1]
        await engine.aclose()


async def test_where_no_local_engine_can_run_both_reasons_are_told(local: Local) -> None:
    away = RemoteProcess()
    engine, _ = make(local, away.config(), EngineConfig(model="not-downloaded"))
    with pytest.raises(CheckpointError, match=r"run `unmask pull small` \(asked because nothing answers at"):
        await engine.complete(REQUEST)
    await engine.aclose()


async def test_nothing_is_answered_locally_unless_the_user_allows_it(local: Local) -> None:
    away = RemoteProcess()
    client = connect(away.config())
    assert isinstance(client, RemoteEngine)
    with pytest.raises(Unreachable):
        await client.complete(replace(REQUEST, deadline_ms=2500))
    await client.aclose()
    assert isinstance(connect(away.config(fallback="local")), FailoverEngine)
