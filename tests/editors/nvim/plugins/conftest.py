"""A Neovim with one of the completion plugins after the other."""

import pytest
from helpers.neovim import open_neovim
from helpers.neovim_plugins import PLUGINS
from helpers.neovim_unmask import open_file, setup, wait_until_ready


@pytest.fixture(scope="module", params=PLUGINS)
def plugin(request):
    return request.param


@pytest.fixture(scope="module")
def running(plugin, served, tmp_path_factory):
    """The module's Neovim, with the plugin."""
    folder = tmp_path_factory.mktemp("nvim")
    with open_neovim(folder, setup(served.url) + plugin.init()) as nvim:
        open_file(nvim, folder / "first.py", "first = 1\n")
        nvim.keys("i")
        wait_until_ready(nvim)
        nvim.keys("<Esc>")
        yield nvim


@pytest.fixture
def own(plugin, engine, start, tmp_path):
    """``own(options, ghost_text)``: a Neovim of the test's own, its plugin with these options."""

    def begin(options, **ghost_text):
        nvim = start(setup(engine.url, ghost_text=ghost_text) + plugin.init(options))
        open_file(nvim, tmp_path / "main.py", "\n")
        nvim.keys("i")
        wait_until_ready(nvim)
        return nvim

    return begin
