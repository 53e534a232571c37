"""Loading, finding the server, help, health and commands."""

import os
import shutil
import sys
import time

import pytest
from helpers.lsp_engine import TOKEN
from helpers.neovim import PLUGIN
from helpers.neovim_unmask import (
    SERVER,
    errors_of,
    open_file,
    setup,
    state,
    wait_until_ready,
)


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


@pytest.mark.parametrize("kind", ["start", "opt"])
def test_the_builtin_package_loader_finds_everything(start, engine, tmp_path, kind):
    engine.completions = {"x = ": "value"}
    package = tmp_path / "home" / "data" / "nvim" / "site" / "pack" / "unmask" / kind
    package.mkdir(parents=True)
    copy = shutil.copytree(PLUGIN, package / "unmask")
    nvim = start(setup(engine.url) if kind == "start" else "", plugin=False)
    if kind == "opt":
        assert nvim.lua("return vim.fn.exists(':Unmask')") == 0
        nvim.command("packadd unmask")
        nvim.lua(setup(engine.url))
    assert nvim.lua("return vim.fn.exists(':Unmask')") == 2
    open_file(nvim, tmp_path / "a.py", "")
    nvim.keys("i")
    nvim.type("x = ")
    nvim.wait_for_screen("x = value", timeout_s=30)
    nvim.keys("<Esc>")
    nvim.command("helptags ALL")
    nvim.command("help unmask-keys")
    assert nvim.lua("return vim.fn.expand('%:p')") == str(copy / "doc" / "unmask.txt")
