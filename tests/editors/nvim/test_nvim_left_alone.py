"""Buffers that the server must not see, not any more, or not yet: what is sent of them, and what comes after."""

from dataclasses import dataclass

import pytest
from helpers.lsp_tap import Tap
from helpers.neovim import ROOT
from helpers.neovim_unmask import SERVER, open_file, setup, wait_until_ready

ATTACHED = "return require('unmask.client').of(vim.api.nvim_get_current_buf()) ~= nil"
WITH_HELPERS = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


@dataclass
class Sent:
    """What the server was sent, by file name."""

    tap: Tap

    def names(self, *methods):
        return [params["textDocument"]["uri"].split("/")[-1] for m in methods for params in self.tap.params_of(m)]

    def knows(self, text):
        """Whether the server was sent this text with any message."""
        return any(text in str(message) for message in self.tap.messages if message["from"] == "editor")

    def opened_text(self, name):
        """The text that a document was opened with the last time."""
        opened = [params["textDocument"] for params in self.tap.params_of("textDocument/didOpen")]
        return [document["text"] for document in opened if document["uri"].endswith(name)][-1]


@pytest.fixture
def tapped(start, engine, tmp_path):
    """``tapped(...)``: a Neovim whose server is ready, with ``a.py`` open, and what the server is sent."""

    def tapped(**options):
        engine.completions = {"x = ": "value", "y = ": "other"}
        tap = Tap(tmp_path / "tap")
        nvim = start(setup(engine.url, cmd=tap.command(*SERVER), **options), environment=WITH_HELPERS)
        open_file(nvim, tmp_path / "a.py", "first = 1\n")
        nvim.keys("i")
        wait_until_ready(nvim)
        nvim.keys("<Esc>")
        return nvim, Sent(tap)

    return tapped


def test_buffers_without_a_name_are_left_alone_until_they_have_one(tapped, tmp_path):
    nvim, sent = tapped()
    for text in ("one = 1", "two = 2"):
        nvim.command("enew")
        nvim.keys(f"i{text}<CR>x = ")
        nvim.keys("<M-Bslash>")
        nvim.wait_for(lambda: any("the buffer has no name yet" in message for message in nvim.messages))
        nvim.keys("<Esc>")
        assert not nvim.lua(ATTACHED)
        nvim.command("set bufhidden=hide | set hidden")
    nvim.command("1,1Unmask edit do")
    nvim.wait_for(lambda: any("no edit: the buffer has no name yet" in message for message in nvim.messages))
    assert not sent.knows("one = 1") and not sent.knows("two = 2")
    nvim.command(f"write {tmp_path / 'two.py'}")
    nvim.wait_for(lambda: nvim.lua(ATTACHED), "the buffer with a name")
    nvim.keys("A")
    nvim.wait_for_screen("x = value")
    nvim.keys("<Esc>")
    nvim.command("bprevious")
    nvim.command(f"file {tmp_path / 'one.py'}")
    nvim.wait_for(lambda: nvim.lua(ATTACHED))
    nvim.keys("A")
    nvim.wait_for_screen("x = value")
    assert sent.opened_text("two.py") == "two = 2\nx = \n" and sent.opened_text("one.py") == "one = 1\nx = \n"
    assert sent.names("textDocument/didOpen") == ["a.py", "two.py", "one.py"]
