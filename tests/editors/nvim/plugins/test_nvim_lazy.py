"""The real lazy.nvim, with the spec of the README."""

import os
import re
import shutil
import sys

import pytest
from helpers.lsp_engine import TOKEN
from helpers.neovim import PLUGIN
from helpers.neovim_plugins import FOLDER, LAZY, needs
from helpers.neovim_unmask import errors_of, open_file

pytestmark = needs(LAZY)

README_SPEC = re.search(r"```lua\n(\{ dir = .*?\})\n```", (PLUGIN / "README.md").read_text(), re.DOTALL)


def spec(folder, *more):
    """The README's, with this folder and further members."""
    assert README_SPEC
    filled = README_SPEC[1].replace("/path/to/unmask/editors/nvim", str(folder))
    assert str(folder) in filled
    return filled.removesuffix("}").rstrip() + "".join(f", {member}" for member in more) + " }"


@pytest.fixture
def lazy(start, engine, tmp_path):
    """``lazy(*members)``: a Neovim with lazy.nvim and our plugin, a copy; the server is `unmask` on PATH."""
    engine.completions = {"x = ": "value"}
    copy = shutil.copytree(PLUGIN, tmp_path / "unmask" / "editors" / "nvim", ignore=shutil.ignore_patterns("tags"))
    server = tmp_path / "bin" / "unmask"
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} -m lsp_server "$@"\n')
    server.chmod(0o755)
    environment = {
        "PATH": f"{server.parent}:{os.environ['PATH']}", "UNMASK_CLIENT_URL": engine.url, "UNMASK_CLIENT_TOKEN": TOKEN,
    }  # fmt: skip

    def begin(*members):
        init = f"""
        vim.opt.runtimepath:prepend('{FOLDER}/{LAZY}')
        vim.g.mapleader = ' '
        require('lazy').setup({{ {spec(copy, *members)} }}, {{
          install = {{ missing = false }}, change_detection = {{ enabled = false }}, rocks = {{ enabled = false }},
        }})
        """
        nvim = start(init, plugin=False, environment=environment)
        open_file(nvim, tmp_path / "a.py", "first\n")
        return nvim

    begin.copy = copy
    return begin


def is_loaded(nvim):
    return nvim.lua("return package.loaded['unmask'] ~= nil")


def complete_a_line(nvim):
    nvim.keys("o")
    nvim.type("x = ")
    nvim.wait_for_screen("x = value", timeout_s=30)
    nvim.keys("<Tab><Esc>")
    assert nvim.buffer == ["first", "x = value"]
    assert errors_of(nvim) == "" and nvim.messages == []


def test_the_spec_of_the_readme(lazy):
    nvim = lazy()
    assert nvim.lua("return require('lazy.core.config').plugins.unmask ~= nil")
    assert is_loaded(nvim) and nvim.lua("return #vim.lsp.get_clients()") == 0
    complete_a_line(nvim)


def test_it_may_be_loaded_by_the_first_insertion(lazy):
    nvim = lazy("event = 'InsertEnter'")
    assert not is_loaded(nvim) and nvim.lua("return vim.fn.exists(':Unmask')") == 0
    complete_a_line(nvim)


def test_it_may_be_loaded_by_its_command(lazy):
    nvim = lazy("cmd = 'Unmask'")
    assert not is_loaded(nvim)
    assert nvim.lua("return vim.fn.getcompletion('Unmask hunk acc', 'cmdline')") == ["accept", "accept_all"]
    nvim.command("Unmask hunk next")
    nvim.wait_for(lambda: nvim.messages)
    assert "there is no edit" in nvim.messages[0]
    nvim.lua("_G.notified = {}")
    complete_a_line(nvim)


def test_it_may_be_loaded_by_a_key(lazy):
    nvim = lazy("keys = { { '<leader>e', function() require('unmask').edit() end, mode = { 'n', 'x' } } }")
    assert not is_loaded(nvim)
    nvim.keys("<Space>e")
    nvim.wait_for_screen("Unmask: edit")
    nvim.keys("<Esc>")
    assert errors_of(nvim) == ""


def test_options_reach_setup(lazy):
    nvim = lazy("opts = { ghost_text = { menu = 'hide' } }")
    assert nvim.lua("return require('unmask.config').current.ghost_text.menu") == "hide"


def test_updating_it_makes_the_help_tags(lazy):
    nvim = lazy()
    nvim.lua("require('lazy').update({ wait = true, show = false, plugins = { 'unmask' } })")
    nvim.command("help unmask-keys")
    assert nvim.lua("return vim.fn.expand('%:p')") == str(lazy.copy / "doc" / "unmask.txt")
