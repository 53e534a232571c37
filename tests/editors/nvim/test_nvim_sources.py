"""The sources for blink.cmp and nvim-cmp, called as those plugins call them.

The plugins themselves are in no package index, so their side is written here after their documented interfaces.
"""

import pytest
from helpers.neovim_unmask import is_visible, text_of, wait_for_ghost

BLINK = """
local source = require('unmask.blink').new({}, {})
_G.answer = nil
assert(source:enabled())
_G.cancel = source:get_completions({}, function(response) _G.answer = response end)
"""
CMP = """
local source = require('unmask.cmp').new()
_G.answer = nil
assert(source:is_available() and source:get_position_encoding_kind() == 'utf-8')
source:complete({}, function(response) _G.answer = response end)
"""
# What both plugins do when an item is taken: its text edit, then `execute`.
TAKE = """
local item = _G.answer.items[1]
vim.lsp.util.apply_text_edits({ item.textEdit }, vim.api.nvim_get_current_buf(), 'utf-8')
"""


@pytest.mark.parametrize("ask", [BLINK, CMP], ids=["blink.cmp", "nvim-cmp"])
def test_an_item_replaces_the_word_before_the_cursor(nvim, engine, edit, ask):
    engine.completions = {"é = count": "er + 1"}
    edit("")
    nvim.keys("i")
    nvim.type("é = count")
    wait_for_ghost(nvim)
    nvim.keys("<C-]>")
    nvim.lua(ask)
    answer = nvim.wait_for(lambda: nvim.lua("return _G.answer"))
    (item,) = answer["items"]
    assert item["label"] == "counter + 1" and item["filterText"].startswith("count") and item["detail"] == "Unmask"
    assert item["textEdit"]["range"]["start"] == {"line": 0, "character": 5}
    nvim.lua(TAKE)
    assert text_of(nvim).startswith("é = counter + 1")
    warmed = len(engine.warmed)
    if ask is BLINK:
        nvim.lua("require('unmask.blink').new():execute({}, _G.answer.items[1], function() _G.done = true end, nil)")
    else:
        nvim.lua("require('unmask.cmp').new():execute(_G.answer.items[1], function() _G.done = true end)")
    assert nvim.wait_for(lambda: nvim.lua("return _G.done"))
    nvim.wait_for(lambda: len(engine.warmed) > warmed, "the server to hear of the acceptance")


def test_a_source_is_off_where_the_server_is_not(nvim, engine, edit):
    nvim.command("enew | setlocal buftype=nofile")
    assert not nvim.lua("return require('unmask.blink').new():enabled()")
    nvim.lua("_G.answer = nil; require('unmask.cmp').new():complete({}, function(r) _G.answer = r end)")
    assert nvim.lua("return _G.answer") == {"items": [], "isIncomplete": True}


MENU = "package.loaded['blink.cmp'] = { is_visible = function() return _G.menu_is_open end }"


def test_ghost_text_is_hidden_while_a_plugins_menu_is_open(nvim, engine, edit):
    engine.completions = {"x = ": "value", "x = v": "ery"}
    nvim.lua(f"require('unmask.config').current.ghost_text.menu = 'hide'; {MENU}")
    try:
        edit("")
        nvim.keys("i")
        nvim.type("x = ")
        wait_for_ghost(nvim)
        nvim.lua("_G.menu_is_open = true")
        nvim.type("v")
        assert not is_visible(nvim) and nvim.screen.lines[0] == "x = v"
        nvim.lua("_G.menu_is_open = false")
        nvim.type("a")
        nvim.wait_for_screen("x = value")
    finally:
        nvim.lua("require('unmask.config').current.ghost_text.menu = 'show'; package.loaded['blink.cmp'] = nil")
