"""Starting, finding the server, settings, failures and recovery, and what the user is told about them."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from helpers.lsp_engine import TOKEN, free_port, wait_until_listening
from helpers.neovim import PLUGIN, ROOT
from helpers.neovim_unmask import (
    SERVER,
    errors_of,
    is_visible,
    open_file,
    setup,
    state,
    wait_for_ghost,
    wait_until_ready,
)

# The language servers among the children of Neovim.
SERVER_PIDS = """
local children = vim.tbl_map(vim.api.nvim_get_proc, vim.api.nvim_get_proc_children(vim.fn.getpid()))
local servers = vim.tbl_filter(function(process) return process.name:find('python') end, children)
return vim.tbl_map(function(process) return process.pid end, servers)
"""


def script(path, text):
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_every_module_loads_and_the_help_has_tags(start, tmp_path):
    nvim = start()
    modules = sorted(
        str(path.relative_to(PLUGIN / "lua").with_suffix("")).replace("/", ".").removesuffix(".init")
        for path in (PLUGIN / "lua").rglob("*.lua")
    )
    assert len(modules) > 25
    for module in modules:
        assert nvim.lua("return type(require(...))", module) == "table", module
    docs = tmp_path / "help" / "doc"
    docs.mkdir(parents=True)
    (docs / "unmask.txt").write_text((PLUGIN / "doc" / "unmask.txt").read_text())
    nvim.command(f"helptags {docs}")
    tags = (docs / "tags").read_text()
    nvim.lua("vim.opt.runtimepath:append(...)", str(docs.parent))
    for tag in (
        "unmask",
        "unmask-options",
        "unmask-keys",
        "unmask-edit",
        ":Unmask",
        "unmask-settings",
        "unmask.setup()",
    ):
        assert f"\n{tag}\t" in f"\n{tags}", tag
        nvim.command(f"help {tag}")
        assert nvim.lua("return vim.bo.buftype") == "help"
    assert errors_of(nvim) == ""


def test_the_documentation_names_every_option_and_every_command(start):
    nvim = start()
    text = (PLUGIN / "doc" / "unmask.txt").read_text()
    options = nvim.lua("return vim.tbl_keys(require('unmask.config').current)")
    keys = nvim.lua("local k = require('unmask.config').current.keys; return vim.tbl_values(k.ghost)")
    keys += nvim.lua("local k = require('unmask.config').current.keys; return vim.tbl_values(k.hunk)")
    commands = nvim.lua("return require('unmask.command').complete('', 'Unmask ')")
    assert {"edit", "toggle", "status", "restart", "trigger", "log", "model", "stats", "health"} <= set(commands)
    for name in [*options, *keys, *(f":Unmask {command}" for command in commands)]:
        assert name in text, name


def test_without_setup_it_starts_at_the_first_insertion_with_the_server_on_the_path(start, engine, tmp_path):
    engine.completions = {"x = ": "value"}
    script(tmp_path / "bin" / "unmask", f'#!/bin/sh\nshift\nexec {sys.executable} -m lsp_server "$@"\n')
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "UNMASK_CLIENT_URL": engine.url,
        "UNMASK_CLIENT_TOKEN": TOKEN,
    }  # fmt: skip
    nvim = start(environment=environment)
    open_file(nvim, tmp_path / "a.py", "")
    assert nvim.lua("return #vim.lsp.get_clients()") == 0 and nvim.lua("return require('unmask').status()") == ""
    nvim.keys("i")
    nvim.type("x = ")
    nvim.wait_for_screen("x = value", timeout_s=30)
    assert nvim.lua("return require('unmask').status()") == "Unmask"
    log = nvim.lua("return require('unmask.client').server.log")
    assert log.endswith("nvim/unmask.log") and log.startswith(str(tmp_path / "home"))
    nvim.keys("<Esc>")
    nvim.command("Unmask log")
    assert nvim.lua("return vim.api.nvim_buf_get_name(0)") == log
    assert any("lsp_server" in line for line in nvim.buffer) and not any("x = " in line for line in nvim.buffer)


def test_a_python_with_the_package_is_found_where_there_is_no_program(start, tmp_path):
    script(tmp_path / "bin" / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    nvim = start(environment={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "VIRTUAL_ENV": ""})
    nvim.lua("require('unmask.locate').find(function(server) _G.found = server end)")
    found = nvim.wait_for(lambda: nvim.lua("return _G.found"))
    assert found["cmd"][:3] == [str(tmp_path / "bin" / "python3"), "-m", "lsp_server"]


@pytest.mark.parametrize(
    ("init", "environment", "message"),
    [
        ("", {"PATH": "/nowhere", "VIRTUAL_ENV": ""}, "no language server was found. Install it (`pip install"),
        ("require('unmask').setup({ cmd = { '/nowhere/unmask', 'lsp' } })", {}, "/nowhere/unmask (option cmd) is not"),
    ],
)
def test_a_missing_server_is_told_once_and_how_to_get_it(start, tmp_path, init, environment, message):
    nvim = start(init, environment=environment)
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("ihello<Esc>")
    nvim.wait_for(lambda: any(message in shown for shown in nvim.messages), message)
    nvim.keys("oagain<Esc>")
    time.sleep(0.1)
    assert len(nvim.messages) == 1
    assert state(nvim)["reason"] == "no_server" and nvim.lua("return require('unmask').status()") == "Unmask ✗"
    nvim.command("Unmask edit do something")
    nvim.wait_for(lambda: any("no edit" in shown and message in shown for shown in nvim.messages))
    assert nvim.buffer == ["hello", "again"] and errors_of(nvim) == ""


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


def test_health(start, engine, tmp_path):
    nvim = start(setup(engine.url), height=60)
    open_file(nvim, tmp_path / ".env", "")
    open_file(nvim, tmp_path / "a.py", "")
    nvim.command("Unmask health")
    text = "\n".join(nvim.buffer)
    assert "not running: it starts at the first insertion" in text and "ERROR" not in text
    nvim.command("bwipeout")
    nvim.keys("i")
    wait_until_ready(nvim)
    nvim.keys("<Esc>")
    nvim.command("checkhealth unmask")
    text = "\n".join(nvim.buffer)
    for part in ("Neovim 0.11", "command: " + " ".join(SERVER), "running: version", "utf-8", "Ready. (ready)",
                 "a.py: attached", ".env: off, .env matches \".env*\" (exclude)"):  # fmt: skip
        assert part in text, part
    assert "ERROR" not in text


def test_health_without_a_server(start):
    nvim = start("require('unmask').setup({ cmd = { '/nowhere/unmask' } })")
    nvim.command("checkhealth unmask")
    assert any("ERROR" in line and "/nowhere/unmask (option cmd)" in line for line in nvim.buffer)


def test_subcommands_are_completed_and_wrong_ones_are_named(start):
    nvim = start()
    complete = "return vim.fn.getcompletion(..., 'cmdline')"
    assert nvim.lua(complete, "Unmask t") == ["toggle", "trigger"]
    assert nvim.lua(complete, "Unmask hunk acc") == ["accept", "accept_all"]
    assert nvim.lua(complete, "Unmask restart ") == ["engine", "server"]
    assert nvim.lua(complete, "4,5Unmask ed") == ["edit"]
    nvim.command("Unmask togle")
    nvim.command("Unmask hunk acept")
    nvim.command("Unmask hunk next")
    nvim.wait_for(lambda: len(nvim.messages) == 3)
    assert "did you mean toggle" in nvim.messages[0]
    assert "accept_all" in nvim.messages[1] and "no edit in this buffer" in nvim.messages[2]


def test_stats_open_in_a_terminal(start, tmp_path):
    fake = script(tmp_path / "unmask", '#!/bin/sh\necho "called with $*"\nsleep 60\n')
    nvim = start(f"require('unmask').setup({{ cmd = {{ '{fake}', 'lsp' }} }})")
    nvim.command("Unmask stats")
    nvim.wait_for_screen("called with stats")
    assert nvim.lua("return vim.bo.buftype") == "terminal"


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


def test_the_builtin_package_loader_finds_everything(start, engine, tmp_path):
    engine.completions = {"x = ": "value"}
    package = tmp_path / "home" / "data" / "nvim" / "site" / "pack" / "unmask" / "start"
    package.mkdir(parents=True)
    copy = shutil.copytree(PLUGIN, package / "unmask")
    nvim = start(setup(engine.url), plugin=False)
    assert nvim.lua("return vim.fn.exists(':Unmask')") == 2
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    nvim.type("x = ")
    nvim.wait_for_screen("x = value", timeout_s=30)
    nvim.keys("<Esc>")
    nvim.command("helptags ALL")
    nvim.command("help unmask-keys")
    assert nvim.lua("return vim.fn.expand('%:p')") == str(copy / "doc" / "unmask.txt")
