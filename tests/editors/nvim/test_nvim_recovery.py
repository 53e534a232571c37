"""Engines and servers that refuse, end, are killed and come back, and what the state says meanwhile."""

import os
import subprocess
import sys
import time

import pytest
from helpers.lsp_engine import TOKEN, free_port, wait_until_listening
from helpers.neovim import ROOT
from helpers.neovim_unmask import (
    SERVER_PIDS,
    is_visible,
    open_file,
    setup,
    state,
    wait_for_ghost,
    wait_until_ready,
)


def test_toggling(start, engine, tmp_path):
    engine.completions = {"x = ": "value", "y = ": "other"}
    nvim = start(setup(engine.url))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    wait_until_ready(nvim)
    nvim.type("x = ")
    wait_for_ghost(nvim)
    nvim.command("Unmask toggle")
    nvim.wait_for(lambda: state(nvim)["reason"] == "disabled")
    assert nvim.lua("return require('unmask').status()") == "Unmask off"
    nvim.wait_for(lambda: not is_visible(nvim))
    nvim.type("1\ny = ")
    time.sleep(0.2)
    assert not is_visible(nvim)
    nvim.command("Unmask toggle")
    nvim.wait_for_screen("y = other")
    nvim.command("Unmask status")
    nvim.wait_for(lambda: any("disabled" in message and "Model scripted" in message for message in nvim.messages))


def test_a_wrong_token_shows_in_the_state(start, engine, tmp_path):
    nvim = start(setup(engine.url, token="wrong"))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("ix = ")
    nvim.wait_for(lambda: state(nvim)["reason"] == "unauthorized", "the state")
    assert state(nvim)["kind"] == "Error" and "unmask.engine.token" in state(nvim)["message"]
    assert nvim.lua("return require('unmask').status()") == "Unmask ✗"
    nvim.keys("<Esc>")
    nvim.command("Unmask edit do")
    nvim.wait_for(lambda: any("unmask.engine.token" in message for message in nvim.messages))
    assert nvim.buffer == ["x = "]


def start_engine(port):
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.lsp_engine", str(port), TOKEN, '{"completions": {"x = ": "value"}}'],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    wait_until_listening(port)
    return process


def test_the_engine_is_killed_and_comes_back(start, tmp_path):
    port = free_port()
    process = start_engine(port)
    try:
        nvim = start(setup(f"http://127.0.0.1:{port}"))
        open_file(nvim, tmp_path / "a.py", "")
        nvim.keys("i")
        wait_until_ready(nvim)
        nvim.type("x = ")
        nvim.wait_for_screen("x = value")
        process.kill()
        process.wait()
        nvim.type("1\nx = ")
        nvim.wait_for(lambda: state(nvim)["reason"] in {"unreachable", "closed"}, "the loss of the engine")
        process = start_engine(port)
        nvim.wait_for_screen("x = 1", "x = value", timeout_s=30)
        assert state(nvim)["reason"] == "ready" and nvim.messages == []
    finally:
        process.kill()
        process.wait()


def test_the_server_is_killed_and_started_again(start, engine, tmp_path):
    engine.completions = {"x = ": "value"}
    nvim = start(setup(engine.url))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    wait_until_ready(nvim)

    def kill_server():
        (pid,) = nvim.wait_for(lambda: nvim.lua(SERVER_PIDS), "a server")
        os.kill(pid, 9)
        nvim.wait_for(lambda: pid not in nvim.lua(SERVER_PIDS))

    kill_server()
    nvim.wait_for(lambda: state(nvim)["reason"] == "restarting", "the end of the server")
    wait_until_ready(nvim)
    nvim.type("x = ")
    nvim.wait_for_screen("x = value")
    for _ in range(3):
        kill_server()
    nvim.wait_for(lambda: state(nvim)["reason"] == "crashed", "the end of patience")
    assert any(":Unmask restart" in message for message in nvim.messages)
    nvim.command("Unmask restart")
    wait_until_ready(nvim)
    nvim.type("1\nx = ")
    nvim.wait_for_screen("x = 1", "x = value")


def test_restarting_the_server_keeps_the_buffers(start, engine, tmp_path):
    engine.completions = {"x = ": "value"}
    nvim = start(setup(engine.url))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("ix =")
    wait_until_ready(nvim)
    first = nvim.lua("return vim.lsp.get_clients()[1].id")
    nvim.command("Unmask restart")
    nvim.wait_for(lambda: nvim.lua("local c = vim.lsp.get_clients()[1]; return c and c.id") not in {None, first})
    wait_until_ready(nvim)
    nvim.type(" ")
    nvim.wait_for_screen("x = value")
    assert nvim.messages == [] and nvim.lua("return #vim.lsp.get_clients()") == 1


@pytest.mark.parametrize("end", ["kill", "restart"])
def test_an_edit_under_way_is_given_up_when_its_server_goes(start, engine, tmp_path, end):
    engine.edits = {"do": "x = 2\n"}
    engine.forward_s = 1.0
    nvim = start(setup(engine.url))
    open_file(nvim, tmp_path / "a.py", "x = 1\n")
    nvim.keys("i<Esc>")
    wait_until_ready(nvim)
    nvim.command("%Unmask edit do")
    nvim.wait_for(lambda: engine.asked_edits)
    if end == "kill":
        (pid,) = nvim.lua(SERVER_PIDS)
        os.kill(pid, 9)
    else:
        nvim.command("Unmask restart")
    nvim.wait_for(lambda: any("the edit is lost" in message for message in nvim.messages))
    assert nvim.lua("return next(require('unmask.edit').all())") is None and nvim.buffer == ["x = 1"]
    engine.forward_s = 0
    wait_until_ready(nvim)
    nvim.command("%Unmask edit do")
    nvim.wait_for_screen("gha accept")
