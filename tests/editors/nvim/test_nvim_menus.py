"""Ghost text beside the menu of nvim-cmp or blink.cmp, which stand-ins open and close (helpers/neovim_stand_ins.py)."""

import pytest
from helpers.neovim_stand_ins import BLINK_MENU, CMP_MENU, FORGET_MENUS
from helpers.neovim_unmask import is_visible, wait_for_ghost

HIDE = "require('unmask.config').current.ghost_text.menu = 'hide'"
SHOW = "require('unmask.config').current.ghost_text.menu = 'show'"


@pytest.fixture(params=[CMP_MENU, BLINK_MENU], ids=["nvim-cmp", "blink.cmp"])
def menu(request, nvim, engine, edit):
    """A file with `x = ` in it, in insert mode, with ghost text."""
    engine.completions = {"x = ": "value", "x = v": "alue", "y = ": "other"}
    nvim.lua(request.param)
    edit("")
    nvim.keys("i")
    nvim.lua("if stand_in.map then stand_in.map() end")
    nvim.type("x = ")
    wait_for_ghost(nvim)
    yield nvim
    nvim.keys("<Esc>")
    nvim.lua(f"{SHOW}; {FORGET_MENUS}")


def test_hidden_ghost_text_goes_and_comes_with_the_menu(menu, engine):
    menu.lua(HIDE)
    menu.lua("stand_in.open(true)")
    menu.wait_for(lambda: not is_visible(menu) and menu.screen.lines[0] == "x =", "no ghost text")
    asked = len(engine.asked)
    menu.type("v")
    assert not is_visible(menu)
    menu.lua("stand_in.open(false)")
    menu.wait_for_screen("x = value")
    assert menu.buffer == ["x = v"] and len(engine.asked) == asked


def test_shown_ghost_text_stays_with_the_menu(menu):
    menu.lua("stand_in.open(true)")
    menu.type("v")
    menu.wait_for_screen("x = value")
    assert is_visible(menu)


def test_it_gives_way_to_ghost_text_of_the_plugin(menu):
    menu.lua("if stand_in.experimental then stand_in.experimental.ghost_text = true end; stand_in.ghost = true")
    menu.lua("stand_in.open(true)")
    menu.wait_for(lambda: not is_visible(menu) and menu.screen.lines[0] == "x =", "no ghost text")
    menu.lua("stand_in.ghost = false; stand_in.open(false)")
    menu.wait_for_screen("x = value")


def test_a_key_that_the_plugin_maps_is_the_menus_while_it_is_open(menu):
    menu.lua("stand_in.open(true)")
    menu.keys("<Tab>")
    assert menu.lua("return stand_in.presses") == 1 and menu.buffer == ["x = "] and is_visible(menu)
    menu.lua("stand_in.falls_back = true")
    menu.keys("<Tab>")
    assert menu.lua("return stand_in.presses") == 2 and menu.buffer == ["x = value"]


def test_the_key_is_ours_while_the_menu_is_closed(menu):
    menu.keys("<Tab>")
    assert menu.lua("return stand_in.presses") == 0 and menu.buffer == ["x = value"]


def test_keys_that_the_plugin_does_not_map_stay_ours(menu):
    menu.lua("stand_in.open(true)")
    menu.keys("<M-Right>")
    assert menu.buffer == ["x = value"] and menu.lua("return stand_in.presses") == 0
    menu.keys("<Esc>ccy = ")
    wait_for_ghost(menu)
    menu.keys("<C-]>")
    assert not is_visible(menu)


def test_the_plugins_mapping_comes_back(menu):
    own = "local m = vim.fn.maparg('<Tab>', 'i', false, true); return { m.desc, m.expr, m.buffer }"
    assert menu.lua(own)[0] == "Unmask: accept"
    menu.keys("<C-]>")
    mapped = menu.lua("return stand_in.map ~= nil")
    assert (menu.lua(own) == ["blink.cmp", 1, 1]) == mapped
    if mapped:
        menu.keys("<Tab>")
        assert menu.lua("return stand_in.presses") == 1
