"""The shared local engine: started once, found again, restarted when it dies. Real processes throughout."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import scripted_engine
from helpers.local_engines import CONFIG, ENDLESS, QUICK, Local, read_state

from diffusion_core.config import ClientConfig, EngineConfig
from diffusion_core.errors import (
    Closed,
    UnmaskError,
    Unreachable,
)
from diffusion_core.net.launcher import LocalEngine, connect
from diffusion_core.net.remote import RemoteEngine
from diffusion_core.net.state_files import StateFiles
from diffusion_core.requests import CompletionRequest, EditRequest, PreviewFrame, Result


async def test_the_first_request_starts_the_engine_and_the_next_finds_it(local: Local) -> None:
    first = local.make()
    assert (await first.complete(QUICK)).text == "cba"
    await first.wait_ready()
    assert local.state_names == ["starting", "ready"]
    pid = read_state(first).pid
    second = local.make()
    items = [item async for item in second.edit(EditRequest(selection="ab", instruction="go", max_tokens=2))]
    assert [type(item) for item in items] == [PreviewFrame, PreviewFrame, Result]
    assert read_state(second).pid == pid
    assert (await second.health()).num_completed == 3


async def test_requests_that_arrive_together_share_one_start(local: Local) -> None:
    engine = local.make()
    results = await asyncio.gather(*(engine.complete(QUICK) for _ in range(5)))
    assert [result.text for result in results] == ["cba"] * 5
    assert local.state_names.count("starting") == 1


def run_editors(number: int) -> set[str]:
    """Processes that use a local engine at the same time; the ids of the engine processes that they found."""
    code = (
        "import asyncio, sys\n"
        "from diffusion_core.net.launcher import LocalEngine\n"
        "from diffusion_core.config import ClientConfig, EngineConfig\n"
        "from diffusion_core.requests import CompletionRequest\n"
        "async def main():\n"
        "    config = ClientConfig(engine=EngineConfig(model='scripted'), engine_start_timeout_s=30)\n"
        "    engine = LocalEngine(config, command=(sys.executable, '-P', '-m', 'helpers.scripted_engine'))\n"
        "    await engine.complete(CompletionRequest(prefix='abc', max_tokens=1))\n"
        "    print(engine.files.read_state().pid)\n"
        "    await engine.aclose()\n"
        "asyncio.run(main())\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    editors = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(number)
    ]
    pids = {editor.communicate()[0].strip() for editor in editors}
    assert [editor.returncode for editor in editors] == [0] * number
    return pids


async def test_two_editors_that_open_at_once_share_one_engine(local: Local) -> None:
    pids = await asyncio.to_thread(run_editors, 4)
    engine = local.make()
    assert pids == {str(read_state(engine).pid)}
    # The engine outlives all who started it.
    await engine.complete(QUICK)
    assert local.state_names[0] != "starting"


def read_process(pid: int, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


async def test_the_engine_process_is_detached_and_knows_no_secret_on_its_command_line(local: Local) -> None:
    engine = local.make()
    await engine.complete(QUICK)
    state = read_state(engine)
    assert os.getsid(state.pid) == state.pid
    assert stat.S_IMODE(engine.files.state.stat().st_mode) == 0o600
    assert stat.S_IMODE(engine.files.state.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(engine.files.log.stat().st_mode) == 0o600
    arguments = read_process(state.pid, "cmdline")
    assert "--state-file" in arguments
    assert state.token not in arguments
    assert state.token not in read_process(state.pid, "environ")
    assert state.token not in repr(state) + repr(engine)


async def test_no_code_and_no_token_in_any_file_beside_the_state(local: Local) -> None:
    engine = local.make()
    canary = "canary_4711_code"
    await engine.complete(CompletionRequest(prefix=canary, max_tokens=1))
    with pytest.raises(UnmaskError, match="internal error"):
        await engine.complete(CompletionRequest(prefix=canary, model="bug"))
    with pytest.raises(UnmaskError, match="internal error"):
        async for _ in engine.edit(EditRequest(selection=canary, instruction=canary, model="bug", max_tokens=5)):
            pass
    with pytest.raises(Unreachable):
        await engine.complete(CompletionRequest(prefix=canary, model="die"))
    token = read_state(engine).token if engine.files.read_state() else "none"
    for path in engine.files.state.parent.iterdir():
        content = path.read_text()
        assert canary not in content
        assert path == engine.files.state or token not in content
    assert "POST /v1/complete 200" in engine.files.log.read_text()


async def test_cancelling_a_request_reaches_the_engine(local: Local) -> None:
    engine = local.make()
    await engine.wait_ready()
    task = asyncio.create_task(engine.complete(ENDLESS))
    await asyncio.sleep(0.3)
    assert (await engine.health()).num_active == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.2)
    health = await engine.health()
    assert health.num_active == 0
    items = engine.edit(EditRequest(selection="abc", instruction="go", max_tokens=8000))
    async for _ in items:
        break
    await items.aclose()
    await asyncio.sleep(0.2)
    num_forwards = (await engine.health()).num_forwards
    await asyncio.sleep(0.2)
    assert (await engine.health()).num_forwards == num_forwards


async def test_cancelling_who_waits_for_the_start_does_not_stop_it(local: Local) -> None:
    engine = local.make()
    impatient = asyncio.create_task(engine.complete(QUICK))
    patient = asyncio.create_task(engine.complete(QUICK))
    await asyncio.sleep(0.05)
    impatient.cancel()
    assert (await patient).text == "cba"
    assert local.state_names.count("starting") == 1


async def test_requests_wait_while_the_model_loads(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scripted_engine.LOAD_VARIABLE, "0.7")
    engine = local.make()
    began = time.monotonic()
    await engine.wait_listening()
    assert (await engine.health()).status == "loading"
    assert (await engine.complete(QUICK)).text == "cba"
    assert time.monotonic() - began > 0.7
    await engine.wait_ready()
    assert local.state_names == ["starting", "loading", "ready"]


async def test_health_begins_the_start_and_does_not_wait(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(scripted_engine.LOAD_VARIABLE, "3.5")
    engine = local.make()
    began = time.monotonic()
    assert (await engine.health()).status == "loading"
    assert time.monotonic() - began < 3
    while (await engine.health()).status == "loading":
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.05)
    assert (await engine.health()).status == "ready"


async def test_an_idle_engine_stops_and_the_next_request_starts_it(local: Local) -> None:
    engine = local.make(replace(CONFIG, engine_idle_exit_s=0.6))
    await engine.complete(QUICK)
    pid = read_state(engine).pid
    began = time.monotonic()
    health = await engine.health()
    while not health.notices:
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.1)
        health = await engine.health()  # looking at it does not keep it awake
    assert "because it was idle" in health.notices[0]
    assert health.status == "ready"
    assert engine.files.read_state() is None
    assert (await engine.complete(QUICK)).text == "cba"
    assert read_state(engine).pid != pid


async def test_a_busy_engine_does_not_stop(local: Local) -> None:
    engine = local.make(replace(CONFIG, engine_idle_exit_s=0.3))
    assert (await engine.complete(CompletionRequest(prefix="abc", max_tokens=60))).num_forwards == 60


async def test_stop_ends_the_engine_for_everybody(local: Local) -> None:
    engine = local.make()
    assert not await engine.stop()
    await engine.complete(QUICK)
    other = local.make()
    task = asyncio.create_task(other.complete(ENDLESS))
    await asyncio.sleep(0.5)
    pid = read_state(engine).pid
    began = time.monotonic()
    assert await engine.stop()
    assert time.monotonic() - began < 9
    with pytest.raises((Closed, Unreachable)):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert engine.files.read_state() is None


async def test_another_configuration_has_another_engine(local: Local) -> None:
    first, second = local.make(), local.make(replace(CONFIG, engine=EngineConfig(model="another")))
    await asyncio.gather(first.complete(QUICK), second.complete(QUICK))
    assert read_state(first).pid != read_state(second).pid


async def test_a_closed_client_starts_nothing(local: Local) -> None:
    engine = local.make()
    waiting = asyncio.create_task(engine.complete(QUICK))
    await asyncio.sleep(0.02)
    await engine.aclose()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await engine.complete(QUICK)
    # The process that was being started goes on, for other editors.
    assert await local.make().complete(QUICK)


def test_the_working_folder_is_no_part_of_the_identity_but_folders_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    relative = LocalEngine(ClientConfig(engine=EngineConfig(model="./model"))).files.state
    monkeypatch.chdir("/")
    absolute = LocalEngine(ClientConfig(engine=EngineConfig(model=str(tmp_path / "model")))).files.state
    assert relative == absolute
    assert relative != StateFiles.of(EngineConfig()).state


async def test_a_relative_model_folder_in_a_request_means_the_same_to_the_engine(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    engine = local.make(replace(CONFIG, engine=EngineConfig(model="./model")))
    assert (await engine.complete(replace(QUICK, model="./model"))).model == str(tmp_path / "model")


def test_connect_chooses_local_or_remote() -> None:
    assert isinstance(connect(ClientConfig()), LocalEngine)
    remote = connect(ClientConfig(url="https://engine.example", token="t0ken"))
    assert isinstance(remote, RemoteEngine)
    assert "t0ken" not in repr(remote)
