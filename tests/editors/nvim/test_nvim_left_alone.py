"""Buffers that the server must not see, not any more, or not yet: what is sent of them, and what comes after."""

import time
from dataclasses import dataclass

import pytest
from helpers.lsp_tap import Tap
from helpers.neovim import ROOT
from helpers.neovim_unmask import (
    SERVER,
    edit_state,
    is_visible,
    open_file,
    setup,
    wait_for_ghost,
    wait_for_hunks,
    wait_until_ready,
)

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


# What makes a buffer one that is to be left alone, and how it would be sent then.
EXCLUSIONS = {
    "another name": "saveas {folder}/id_rsa_conf.py",
    "another name, written later": "file {folder}/id_rsa_conf.py",
    "a variable": "let b:unmask_enabled = v:false",
    "a filetype": "set filetype=text",
}


@pytest.mark.parametrize("how", EXCLUSIONS)
def test_a_buffer_that_is_to_be_left_alone_from_now_on_leaves_the_server(tapped, tmp_path, how):
    nvim, sent = tapped(filetypes={"text": False})
    nvim.keys("A<CR>x = ")
    wait_for_ghost(nvim)
    nvim.keys("<Esc>")
    nvim.command(EXCLUSIONS[how].format(folder=tmp_path))
    nvim.keys("osecret = 1<CR>x = ")
    time.sleep(0.3)
    assert not is_visible(nvim)
    nvim.keys("<Esc>")
    nvim.command("write! | normal! Goanother secret = 2")
    time.sleep(0.3)
    assert nvim.lua("return #vim.lsp.get_clients({ bufnr = 0 })") == 0
    assert not sent.knows("secret") and sent.names("textDocument/didOpen") == ["a.py"]
    assert sent.names("textDocument/didClose") == ["a.py"]


def test_a_text_is_not_sent_by_what_comes_before_any_event(tapped):
    """Nothing tells that a variable was set."""
    nvim, sent = tapped()
    nvim.lua("vim.b.unmask_enabled = false; vim.api.nvim_buf_set_lines(0, 0, 0, true, { 'secret = 1' })")
    nvim.wait_for(lambda: sent.names("textDocument/didClose"))
    nvim.command("write")
    time.sleep(0.3)
    assert not sent.knows("secret") and sent.names("textDocument/didSave") == []


def test_options_that_exclude_a_buffer_later(tapped):
    nvim, sent = tapped()
    nvim.lua("require('unmask').setup({ exclude = { 'a.*' } })")
    nvim.wait_for(lambda: sent.names("textDocument/didClose") == ["a.py"])
    assert not nvim.lua(ATTACHED)


def test_another_name_that_may_be_seen(tapped, tmp_path):
    nvim, sent = tapped()
    nvim.keys("Goa = 1<Esc>")
    nvim.command(f"saveas {tmp_path / 'b.py'}")
    nvim.wait_for(lambda: nvim.lua(ATTACHED))
    nvim.keys("Gox = ")
    nvim.wait_for_screen("x = value")
    nvim.keys("<Esc>")
    nvim.wait_for(lambda: sent.names("textDocument/didOpen") == ["a.py", "b.py"])
    assert sent.names("textDocument/didClose") == ["a.py"]
    assert sent.opened_text("b.py") == "first = 1\na = 1\n"


def test_an_edit_in_a_buffer_that_leaves_is_lost_and_that_is_told(tapped, engine, tmp_path):
    nvim, sent = tapped()
    engine.edits = {"do": "last = 1\n"}
    nvim.command("%Unmask edit do")
    wait_for_hunks(nvim)
    nvim.command(f"saveas {tmp_path / 'id_rsa_conf.py'}")
    assert edit_state(nvim) == "" and nvim.buffer == ["first = 1"]
    assert any("the edit is lost: the file got another name" in message for message in nvim.messages)
    nvim.wait_for(lambda: sent.tap.commands("unmask.rejectEdit"))


def test_changes_reach_the_server_after_a_time_without_it(tapped, engine):
    """Neovim stops listening to a buffer that is changed while no server has it."""
    nvim, _sent = tapped()
    for answer in ("switched off", "restarted"):
        if answer == "switched off":
            nvim.command("Unmask toggle buffer")
            nvim.keys("Gomeanwhile = 1<Esc>")
            nvim.command("Unmask toggle buffer")
        else:
            nvim.command("Unmask restart")
            nvim.keys("Gomeanwhile = 2<Esc>")
        nvim.wait_for(lambda: nvim.lua(ATTACHED))
        nvim.keys("Gox = ")
        nvim.wait_for_screen("x = value")
        nvim.keys("<Esc>")
        assert engine.asked[-1].prefix == "\n".join(nvim.buffer)
        nvim.command("write | edit!")
        nvim.keys("Goy = ")
        nvim.wait_for_screen("y = other")
        nvim.keys("<Esc>")
        assert engine.asked[-1].prefix == "\n".join(nvim.buffer)
