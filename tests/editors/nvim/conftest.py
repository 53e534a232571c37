"""A real Neovim with the plugin, a real language-server process, and an engine whose answers are in the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.lsp_engine import WrittenEngine, serve_engine
from helpers.neovim import Neovim, open_neovim
from helpers.neovim_unmask import open_file, setup, wait_until_ready

FILES = itertools.count()


@pytest.fixture(scope="module")
def served() -> Iterator[WrittenEngine]:
    engine = WrittenEngine()
    with serve_engine(engine) as engine.url:
        yield engine


@pytest.fixture
def engine(served: WrittenEngine) -> WrittenEngine:
    """The module's engine, as new: without answers."""
    fresh = WrittenEngine()
    for name in vars(fresh):
        setattr(served, name, getattr(fresh, name))
    return served


@pytest.fixture(scope="module")
def running(served: WrittenEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neovim]:
    """The module's Neovim, its server started and connected."""
    folder = tmp_path_factory.mktemp("nvim")
    with open_neovim(folder, setup(served.url)) as nvim:
        open_file(nvim, folder / "first.py", "first = 1\n")
        nvim.keys("i")
        wait_until_ready(nvim)
        nvim.keys("<Esc>")
        yield nvim


@pytest.fixture
def nvim(running: Neovim, engine: WrittenEngine) -> Iterator[Neovim]:
    """The module's Neovim without windows, buffers and messages of earlier tests; nothing may have failed in it."""
    running.keys("<Esc><Esc>")
    running.command("silent! tabonly | silent! only")
    running.lua("_G.notified, _G.requests = {}, {}; vim.cmd('messages clear'); vim.v.errmsg = ''")
    yield running
    assert running.lua("return vim.v.errmsg") == ""
    running.keys("<Esc><Esc>")
    running.command("silent! %bwipeout!")


@pytest.fixture
def edit(nvim: Neovim, tmp_path: Path) -> Callable[..., Path]:
    """``edit(text)`` opens a new file with this text; the server has never seen it."""

    def edit(text: str, name: str = "main.py", line_end: str = "\n") -> Path:
        path = tmp_path / f"{next(FILES)}" / name
        open_file(nvim, path, text, line_end=line_end)
        return path

    return edit


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Neovim]]:
    """``start(init, ...)`` starts a Neovim of the test's own."""
    with ExitStack() as stack:
        yield lambda init="", **options: stack.enter_context(open_neovim(tmp_path / "home", init, **options))
