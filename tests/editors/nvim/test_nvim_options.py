"""Options and settings: what they do, and what is said about wrong ones."""

import dataclasses
import time

import pytest
from helpers.lsp_engine import TOKEN
from helpers.lsp_tap import Tap
from helpers.neovim import ROOT
from helpers.neovim_unmask import (
    SERVER,
    SERVER_PIDS,
    is_visible,
    open_file,
    setup,
    state,
    wait_for_ghost,
    wait_until_ready,
)

from lsp_server.settings import Settings, camel_case


def test_wrong_options_are_named_and_nothing_is_changed(start):
    nvim = start()
    nvim.lua(
        """require('unmask').setup({
          ghost_txt = {}, start = 'later', ghost_text = { enabeld = true, auto = 'yes' },
          keys = { ghost = { acept = '<Tab>', accept = true } },
        })"""
    )
    (message,) = nvim.wait_for(lambda: nvim.messages)
    for part in (
        "ghost_txt is not an option; did you mean ghost_text",
        'start is "later": allowed is insert, open, manual',
        "ghost_text.enabeld is not an option; did you mean ghost_text.enabled",
        "ghost_text.auto must be a boolean, not a string",
        "keys.ghost.acept is not an option; did you mean keys.ghost.accept",
        "keys.ghost.accept must be a key, or false for none",
    ):
        assert part in message
    assert nvim.lua("return require('unmask.config').current.start") == "insert"


def test_a_wrong_setting_of_the_server_is_told_with_the_nearest_name(start, engine, tmp_path):
    nvim = start(setup(engine.url, settings={"completion": {"maxTokns": 3}}))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    nvim.wait_for(
        lambda: any("unmask.completion.maxTokns is not a setting; did you mean maxTokens" in m for m in nvim.messages)
    )
    nvim.wait_for(lambda: state(nvim)["kind"] == "Warning")
    assert nvim.lua("return require('unmask').status()") == "Unmask !"
    nvim.keys("<Esc>")
    nvim.lua(
        "require('unmask').setup(...)",
        {"cmd": list(SERVER), "settings": {"engine": {"url": engine.url, "token": TOKEN}}},
    )
    nvim.wait_for(lambda: state(nvim)["reason"] == "ready", "settings that are sent again")


def test_an_empty_list_reaches_the_server_and_an_empty_object_says_nothing(start, engine, tmp_path):
    tap = Tap(tmp_path / "tap")
    # Read from JSON, [] is what {} is in Lua.
    empty = {"ignore": {"globs": []}, "languages": {"disabled": []}, "completion": {"debounceMs": [], "context": []}}
    init = setup(engine.url, cmd=tap.command(*SERVER), settings={**empty, "edit": []})
    nvim = start(init, environment={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"})
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    wait_until_ready(nvim)
    (initialize,) = tap.params_of("initialize")
    changed = tap.params_of("workspace/didChangeConfiguration")[-1]["settings"]["unmask"]
    for sent in (initialize["initializationOptions"], changed):
        del sent["engine"]
        assert sent == {"ignore": {"globs": []}, "languages": {"disabled": []}}
    assert nvim.messages == []


def test_the_plugin_knows_which_settings_are_objects(start):
    objects = [
        f"{camel_case(section.name)}.{camel_case(setting.name)}"
        for section in dataclasses.fields(Settings)
        if dataclasses.is_dataclass(section.default_factory)
        for setting in dataclasses.fields(section.default_factory)
        if dataclasses.is_dataclass(setting.default_factory)
    ]
    assert sorted(objects) == sorted(start().lua("return vim.tbl_keys(require('unmask.config').OBJECTS)"))


def test_keys_can_be_changed_and_switched_off(start, engine, tmp_path):
    engine.completions = {"x = ": "value"}
    nvim = start(setup(engine.url, keys={"ghost": {"accept": "<C-y>", "dismiss": False}, "edit": "<F5>"}))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    wait_until_ready(nvim)
    nvim.type("x = ")
    wait_for_ghost(nvim)
    assert "Unmask" not in nvim.lua("return vim.fn.maparg('<Tab>', 'i', false, true).desc or ''")
    nvim.keys("<C-]>")
    assert is_visible(nvim)
    nvim.keys("<C-y>")
    assert nvim.buffer == ["x = value"]
    assert nvim.lua("return vim.fn.maparg('<F5>', 'x', false, true).desc") == "Unmask: edit with an instruction"
    nvim.keys("<Esc>oend<Esc>ggVj<F5>")
    nvim.wait_for_screen("Unmask: edit 2 lines")
    nvim.keys("<Esc>")
    assert nvim.mode == "n" and nvim.buffer == ["x = value", "end"]
    nvim.lua("require('unmask').setup({ keys = false })")
    assert nvim.lua("return vim.fn.maparg('<F5>', 'x')") == ""
    assert nvim.lua("return vim.fn.maparg('<M-Bslash>', 'i')") == ""
    assert nvim.messages == []


@pytest.mark.parametrize("start_at", ["open", "manual"])
def test_when_the_server_starts(start, engine, tmp_path, start_at):
    nvim = start(setup(engine.url, start=start_at))
    open_file(nvim, tmp_path / "a.py", "x = 1\n")
    if start_at == "manual":
        nvim.keys("ix<Esc>")
        time.sleep(0.1)
        assert nvim.lua(SERVER_PIDS) == []
        engine.edits = {"do": "x = 2\n"}
        nvim.command("%Unmask edit do")
        nvim.wait_for_screen("gha accept")
    wait_until_ready(nvim)
    if start_at == "manual":
        # Once it runs, it is there for other buffers as well.
        engine.completions = {"y = ": "value"}
        nvim.keys("ghR")
        open_file(nvim, tmp_path / "b.py", "")
        assert nvim.lua("return #vim.lsp.get_clients({ bufnr = 0 })") == 0
        nvim.keys("i")
        nvim.type("y = ")
        nvim.wait_for_screen("y = value")


@pytest.mark.parametrize("command", ["Unmask status", "Unmask toggle", "Unmask hunk next", "Unmask restart engine"])
def test_other_commands_start_no_server(start, engine, tmp_path, command):
    nvim = start(setup(engine.url, start="manual"))
    open_file(nvim, tmp_path / "a.py", "x = 1\n")
    nvim.command(command)
    nvim.keys("ix<Esc>")
    time.sleep(0.1)
    assert nvim.lua(SERVER_PIDS) == []


@pytest.mark.parametrize("command", ["Unmask restart", "Unmask toggle buffer"])
def test_commands_that_start_the_server(start, engine, tmp_path, command):
    nvim = start(setup(engine.url, start="manual"))
    open_file(nvim, tmp_path / "a.py", "x = 1\n")
    nvim.command("let b:unmask_enabled = v:" + ("false" if "toggle" in command else "true"))
    nvim.command(command)
    wait_until_ready(nvim)


def test_without_asking_by_itself(start, engine, tmp_path):
    engine.completions = {"x = ": "value"}
    nvim = start(setup(engine.url, ghost_text={"auto": False}, border="none"))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    wait_until_ready(nvim)
    nvim.type("x = ")
    time.sleep(0.2)
    assert engine.asked == [] and not is_visible(nvim)
    nvim.keys("<M-Bslash>")
    wait_for_ghost(nvim)
    nvim.type("val")
    assert is_visible(nvim) and nvim.screen.lines[0] == "x = value"
    nvim.type("!")
    time.sleep(0.2)
    assert not is_visible(nvim) and len(engine.asked) == 1
    nvim.keys("<Esc>")
    nvim.command("Unmask edit")
    nvim.wait_for(lambda: nvim.mode == "i" and nvim.buffer == [""], "the prompt")
    nvim.keys("<Esc>")
    assert nvim.buffer == ["x = val!"]


def test_buffers_that_are_left_alone(start, engine, tmp_path):
    engine.completions = {"x = ": "value"}
    nvim = start(setup(engine.url, filetypes={"text": False}))
    clients = "return #vim.lsp.get_clients({ bufnr = 0 })"
    for name in (".env", ".ENV.local", "server.pem", "secrets.yaml", "id_rsa", "notes.txt"):
        open_file(nvim, tmp_path / name, "")
        nvim.keys("ix = ")
        nvim.keys("<M-Bslash><Esc>")
    nvim.command("enew | setlocal buftype=nofile")
    nvim.keys("ix = <Esc>")
    # Not even a server was started for any of them.
    assert nvim.lua("return vim.api.nvim_get_proc_children(vim.fn.getpid())") == []
    open_file(nvim, tmp_path / "a.py", "")
    nvim.command("Unmask toggle buffer")
    nvim.keys("ix = <Esc>")
    assert nvim.lua(clients) == 0
    nvim.command("Unmask toggle buffer")
    nvim.wait_for(lambda: nvim.lua(clients) == 1)
    nvim.keys("A")
    wait_until_ready(nvim)
    nvim.wait_for_screen("x = value")
    assert len([message for message in nvim.messages if "may hold secrets" in message]) == 5  # why nothing came


def test_the_native_client_is_used_only_where_there_is_one(start, engine, tmp_path):
    """Neovim 0.11 has no vim.lsp.inline_completion; that one function stands in for 0.12's."""
    engine.completions = {"x = ": "value"}
    nvim = start(setup(engine.url, ghost_text={"native": True}))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    wait_until_ready(nvim)
    nvim.type("x = ")
    nvim.wait_for_screen("x = value")
    assert any("needs Neovim 0.12" in message for message in nvim.messages)
    nvim.keys("<Esc>")
    nvim.lua("vim.lsp.inline_completion = { enable = function(on, filter) _G.native = { on, filter } end }")
    open_file(nvim, tmp_path / "b.py", "")
    nvim.keys("i")
    native = nvim.wait_for(lambda: nvim.lua("return _G.native"))
    assert native == [True, {"client_id": nvim.lua("return vim.lsp.get_clients()[1].id")}]
    nvim.type("x = ")
    time.sleep(0.3)
    assert not is_visible(nvim)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_position_encodings(start, engine, tmp_path, encoding):
    engine.completions = {"'👩‍🚀' + ": "'漢字'"}
    engine.edits = {"do": "a = '👩‍🚀'\nb = '漢字'\n"}
    nvim = start(setup(engine.url, capabilities={"general": {"positionEncodings": [encoding]}}))
    open_file(nvim, tmp_path / "a.py", "a = '👩‍🚀'\nb = 2")
    nvim.keys("i<Esc>")
    wait_until_ready(nvim)
    assert nvim.lua("return vim.lsp.get_clients()[1].offset_encoding") == encoding
    nvim.keys("ggA + ")
    nvim.wait_for_screen("+ '漢字'")
    nvim.keys("<Tab><Esc>")
    assert nvim.buffer == ["a = '👩‍🚀' + '漢字'", "b = 2"]
    nvim.keys("u")
    nvim.command("%Unmask edit do")
    nvim.wait_for_screen("gha accept")
    nvim.keys("ghA")
    nvim.wait_for(lambda: nvim.buffer == ["a = '👩‍🚀'", "b = '漢字'"])


def test_ordinary_completion_where_ghost_text_is_off(start, engine, tmp_path):
    engine.completions = {"counter = ": "0"}
    nvim = start(setup(engine.url, ghost_text={"enabled": False}))
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    wait_until_ready(nvim)
    nvim.type("counter = ")
    nvim.command("set completeopt=menuone,noinsert")
    nvim.keys("<C-x><C-o>")
    nvim.wait_for(lambda: nvim.lua("return vim.fn.pumvisible()") == 1)
    nvim.keys("<C-y>")
    nvim.wait_for(lambda: nvim.buffer == ["counter = 0"])
    assert not is_visible(nvim)
