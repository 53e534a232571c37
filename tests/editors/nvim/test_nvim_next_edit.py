"""After a change of the user's: the next place for it is offered as an edit, and only while nothing else is done."""

import time

import pytest
from helpers.neovim import open_neovim
from helpers.neovim_unmask import (
    edit_state,
    open_file,
    setup,
    text_of,
    wait_for_hunks,
    wait_for_no_edit,
    wait_until_ready,
)

TEXT = "def area(w, h):\n    print(w, h)\n\n    size = w * h\n    return size + w\n"
RENAME = "Rename `w` to `{}`. Change nothing else."


@pytest.fixture(scope="module")
def running(served, tmp_path_factory):
    """A Neovim in which next edits are switched on."""
    folder = tmp_path_factory.mktemp("nvim")
    settings = {"nextEdit": {"enabled": True, "minConfidence": 30}}
    with open_neovim(folder, setup(served.url, settings=settings)) as nvim:
        open_file(nvim, folder / "first.py", "first = 1\n")
        nvim.keys("i")
        wait_until_ready(nvim)
        nvim.keys("<Esc>")
        yield nvim


def rename(nvim, engine, edit, new="width"):
    engine.edits[RENAME.format(new)] = f"    print({new}, h)\n"
    edit(TEXT)
    nvim.keys("i<Esc>")  # the first insertion shows the buffer to the server
    nvim.wait_for(lambda: nvim.lua("return require('unmask.client').of(vim.api.nvim_get_current_buf()) ~= nil"))
    nvim.keys(f"f(lcw{new}<Esc>")
    wait_for_hunks(nvim)


def renamed(new, *places):
    text = TEXT.replace("area(w", f"area({new}")
    for place in places:
        text = text.replace(place, place.replace("w", new))
    return text.rstrip("\n")


def test_a_rename_is_carried_on_from_line_to_line(nvim, engine, edit):
    rename(nvim, engine, edit)
    nvim.wait_for_screen("print(width, h)", "gha accept")
    assert nvim.cursor[0] == 0, "the cursor stays"
    engine.edits[RENAME.format("width")] = "    size = width * h\n"
    nvim.keys("ghA")
    nvim.wait_for_screen("size = width * h")
    engine.edits[RENAME.format("width")] = "    return size + width\n"
    nvim.keys("ghA")
    nvim.wait_for_screen("return size + width")
    nvim.keys("ghR")
    wait_for_no_edit(nvim)
    assert text_of(nvim) == renamed("width", "(w,", "= w ")
    nvim.keys("u")
    assert text_of(nvim) == renamed("width", "(w,"), "each is an undo step of its own"


def test_an_offer_goes_when_the_text_is_changed(nvim, engine, edit):
    rename(nvim, engine, edit)
    num_asked = len(engine.asked_edits)
    engine.edits[RENAME.format("width2")] = "    print(width2, h)\n"
    nvim.keys("a2<Esc>")
    nvim.wait_for_screen("print(width2, h)", "gha accept")
    assert len(engine.asked_edits) == num_asked + 1
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert text_of(nvim) == renamed("width2", "(w,")


def test_an_undo_takes_the_offer_away_and_asks_for_nothing(nvim, engine, edit):
    rename(nvim, engine, edit)
    num_asked = len(engine.asked_edits)
    nvim.keys("u")
    wait_for_no_edit(nvim)
    time.sleep(1)
    assert len(engine.asked_edits) == num_asked and edit_state(nvim) == ""
    assert text_of(nvim) == TEXT.rstrip("\n")
