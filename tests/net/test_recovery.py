"""An engine that dies, hangs, cannot start or left things behind. Real processes throughout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers import scripted_engine
from helpers.local_engines import COMMAND, CONFIG, ENDLESS, QUICK, Local, read_state
from helpers.lsp_client import wait_until
from helpers.running_server import run_engine_server

from diffusion_core.config import EngineConfig
from diffusion_core.errors import (
    CheckpointError,
    ConfigError,
    Unreachable,
)
from diffusion_core.net import client, rendezvous, spawn, supervisor
from diffusion_core.net.launcher import LocalEngine
from diffusion_core.net.rendezvous import Found
from diffusion_core.net.state_files import EngineState
from diffusion_core.net.supervisor import Supervisor
from diffusion_core.requests import CompletionRequest, EditRequest, Result


async def test_an_engine_killed_while_working_is_replaced_within_seconds(local: Local) -> None:
    engine = local.make()
    await engine.wait_ready()
    working = [asyncio.create_task(engine.complete(ENDLESS)) for _ in range(3)]
    await asyncio.sleep(0.3)
    pid = read_state(engine).pid
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    for task in working:
        with pytest.raises(Unreachable, match="the engine stopped while working"):
            await task
    assert time.monotonic() - began < 5
    assert (await engine.complete(QUICK)).text == "cba"
    assert time.monotonic() - began < 15  # bench.recovery measures it
    assert read_state(engine).pid != pid
    await engine.wait_ready()
    assert local.state_names == ["starting", "ready", "restarting", "starting", "ready"]


async def test_an_engine_killed_while_streaming_ends_the_edit_with_an_error(local: Local) -> None:
    engine = local.make()
    with pytest.raises(Unreachable, match="the engine stopped while working"):
        async for _ in engine.edit(EditRequest(selection="abc", instruction="go", max_tokens=8000)):
            with suppress(ProcessLookupError):  # frames that were under way still come in
                os.kill(read_state(engine).pid, signal.SIGKILL)
    items = [item async for item in engine.edit(EditRequest(selection="abc", instruction="go", max_tokens=1))]
    assert isinstance(items[-1], Result)


async def test_an_engine_killed_while_idle_is_not_even_noticed(local: Local) -> None:
    engine = local.make()
    await engine.complete(QUICK)
    os.kill(read_state(engine).pid, signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert (await engine.complete(QUICK)).text == "cba"
    os.kill(read_state(engine).pid, signal.SIGKILL)
    await asyncio.sleep(0.2)
    items = [item async for item in engine.edit(EditRequest(selection="abc", instruction="go", max_tokens=1))]
    assert isinstance(items[-1], Result)


async def test_a_request_that_kills_the_engine_every_time_is_slowed_down(local: Local) -> None:
    engine = local.make()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unreachable):
            await engine.complete(CompletionRequest(prefix="abc", model="die"))
    await engine.complete(QUICK)
    # The first restart is immediate, the second after half a second, the third after one.
    assert time.monotonic() - began > 1.5


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (scripted_engine.FAILING_MODEL, "run `unmask pull small`"),
        (scripted_engine.LATE_FAILING_MODEL, "tensor lm_head has the wrong shape"),
    ],
)
async def test_what_keeps_the_engine_from_starting_is_told(local: Local, model: str, message: str) -> None:
    engine = local.make(replace(CONFIG, engine=EngineConfig(model=model)))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=message):
        await engine.wait_ready()
    assert time.monotonic() - began < 5
    assert local.states[-1][0] == "failed"
    assert message in local.states[-1][1]
    # At once again: the same answer, but no new process.
    num_starts = local.state_names.count("starting")
    with pytest.raises(CheckpointError, match=message):
        await engine.complete(QUICK)
    with pytest.raises(CheckpointError, match=message):
        await engine.health()
    assert local.state_names.count("starting") == num_starts
    # After the pause a new attempt is made.
    await asyncio.sleep(0.6)
    with pytest.raises(CheckpointError, match=message):
        await engine.wait_ready()
    assert local.state_names.count("starting") == num_starts + 1


async def test_a_request_that_waits_for_a_model_that_fails_gets_the_reason(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(scripted_engine.LOAD_VARIABLE, "0.5")
    engine = local.make(replace(CONFIG, engine=EngineConfig(model=scripted_engine.LATE_FAILING_MODEL)))
    with pytest.raises(CheckpointError, match="tensor lm_head"):
        await engine.complete(QUICK)


async def test_whoever_looks_first_at_an_engine_that_ended_while_loading_is_told_why(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_POLL_S", 2.5)  # it looks again when the engine has long ended
    monkeypatch.setenv(scripted_engine.LOAD_VARIABLE, "1.0")
    engine = local.make(replace(CONFIG, engine=EngineConfig(model=scripted_engine.LATE_FAILING_MODEL)))
    await engine.wait_listening()
    assert (await engine.health()).status == "loading"
    began = time.monotonic()
    await wait_until(lambda: not engine.files.is_owned(), 20.0)
    with pytest.raises(CheckpointError, match="tensor lm_head"):
        while (await engine.health()).status == "loading":
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.05)
    assert local.state_names == ["starting", "loading", "failed"]


async def test_whoever_looks_while_another_finds_out_that_it_failed_is_told_why(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_alive = Supervisor.is_alive

    async def is_alive_and_watched(of: Supervisor, found: Found) -> bool:
        alive = await is_alive(of, found)
        if not alive:
            await wait_until(lambda: not of.is_loading)
        return alive

    monkeypatch.setattr(Supervisor, "is_alive", is_alive_and_watched)
    monkeypatch.setattr(supervisor, "_FIRST_POLL_S", 2.5)
    monkeypatch.setenv(scripted_engine.LOAD_VARIABLE, "1.0")
    engine = local.make(replace(CONFIG, engine=EngineConfig(model=scripted_engine.LATE_FAILING_MODEL)))
    await engine.wait_listening()
    assert (await engine.health()).status == "loading"
    await wait_until(lambda: not engine.files.is_owned(), 20.0)
    assert local.state_names == ["starting", "loading"]
    with pytest.raises(CheckpointError, match="tensor lm_head"):
        await engine.health()
    assert local.state_names == ["starting", "loading", "failed"]


async def test_a_program_that_ends_without_a_word(local: Local) -> None:
    engine = LocalEngine(CONFIG, command=(sys.executable, "-c", "import os; os.abort()"))
    with pytest.raises(Unreachable, match=r"ended at its start \(SIGABRT\): see .*\.stderr"):
        await engine.complete(QUICK)
    await engine.aclose()
    engine = LocalEngine(CONFIG, command=("/no/such/program",))
    with pytest.raises(ConfigError, match="cannot start the engine process: No such file"):
        await engine.complete(QUICK)
    await engine.aclose()


async def test_a_program_that_never_listens(local: Local) -> None:
    config = replace(CONFIG, engine_start_timeout_s=0.5)
    engine = LocalEngine(config, command=(sys.executable, "-c", "import time; time.sleep(60)"))
    with pytest.raises(Unreachable, match=r"does not listen after 0\.5 s \(client\.engine_start_timeout_s\)"):
        await engine.complete(QUICK)
    await engine.aclose()


async def test_what_a_dead_engine_left_behind_is_replaced(local: Local) -> None:
    engine = local.make()
    files = engine.files
    files.prepare_folder()
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await dead.wait()
    left = json.dumps(asdict(EngineState(pid=dead.pid, port=1, token="t", version="0", started=1.0)))
    for leftover in ("{damaged", left):
        files.state.write_text(leftover)
        assert (await engine.complete(QUICK)).text == "cba"
        await engine.stop()


async def test_a_port_that_belongs_to_another_server_by_now(local: Local) -> None:
    engine = local.make()
    engine.files.prepare_folder()
    with run_engine_server(scripted_engine.ScriptedEngine()) as other:
        port = int(other.url.rpartition(":")[2])
        # Its process id must not be touched: nobody holds the owner's lock.
        state = EngineState(pid=os.getpid(), port=port, token="another", version="0", started=1.0)
        engine.files.write_state(state)
        assert (await engine.complete(QUICK)).text == "cba"
        assert read_state(engine).port != port


async def test_a_wrong_token_in_the_state_file_replaces_the_engine(local: Local) -> None:
    engine = local.make()
    await engine.complete(QUICK)
    state = read_state(engine)
    engine.files.write_state(replace(state, token="wrong"))
    other = local.make()
    assert (await other.complete(QUICK)).text == "cba"
    assert read_state(other).pid != state.pid
    assert (await engine.complete(QUICK)).text == "cba"  # the first client finds the new one


async def test_a_hung_engine_is_replaced(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_HUNG_AFTER_S", 0.5)
    monkeypatch.setattr(spawn, "_STOP_GRACE_S", 0.3)
    engine = local.make()
    await engine.complete(QUICK)
    pid = read_state(engine).pid
    os.kill(pid, signal.SIGSTOP)
    other = local.make(replace(CONFIG, connect_timeout_s=0.3))
    assert (await other.complete(QUICK)).text == "cba"
    assert read_state(other).pid != pid


async def test_an_engine_that_is_silent_for_a_while_is_not_replaced(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_HEALTH_TIMEOUT_S", 0.3)
    engine = local.make()
    await engine.complete(QUICK)
    pid = read_state(engine).pid
    other = local.make(replace(CONFIG, connect_timeout_s=0.3))
    os.kill(pid, signal.SIGSTOP)
    asking = asyncio.create_task(other.complete(QUICK))
    await asyncio.sleep(1.5)
    os.kill(pid, signal.SIGCONT)
    assert (await asking).text == "cba"
    assert read_state(other).pid == pid


@pytest.mark.parametrize("ends_with", [signal.SIGCONT, signal.SIGKILL])
async def test_an_engine_that_is_silent_while_it_loads_has_not_stopped(
    local: Local, monkeypatch: pytest.MonkeyPatch, ends_with: signal.Signals
) -> None:
    monkeypatch.setattr(client, "_HEALTH_TIMEOUT_S", 0.3)
    monkeypatch.setattr(rendezvous, "_HUNG_AFTER_S", 0.3)
    monkeypatch.setenv(scripted_engine.LOAD_VARIABLE, "1")
    engine = local.make()
    await engine.wait_listening()
    pid = read_state(engine).pid
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(1.5)
    assert local.state_names == ["starting", "loading"]
    os.kill(pid, ends_with)
    if ends_with == signal.SIGCONT:
        await engine.wait_ready()
        assert read_state(engine).pid == pid
    else:
        with pytest.raises(Unreachable, match="stopped while it was loading"):
            await engine.wait_ready()
    assert local.state_names[2:] == ["ready" if ends_with == signal.SIGCONT else "failed"]


async def test_a_state_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "file" / "state"))
    engine = LocalEngine(CONFIG, command=COMMAND)
    with pytest.raises(ConfigError, match="set UNMASK_STATE_DIR to another"):
        await engine.complete(QUICK)
    await engine.aclose()
