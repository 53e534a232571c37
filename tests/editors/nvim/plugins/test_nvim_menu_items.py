"""The real nvim-cmp and blink.cmp: what our source puts into their menus, and what taking it makes of the text."""

import time

import pytest
from helpers.neovim_plugins import NVIM_CMP, PLUGINS, WORDS, type_into
from helpers.neovim_unmask import is_visible, text_of, wait_for_ghost

PAIRS = """
inoremap <buffer> ( ()<C-g>U<Left>
inoremap <buffer> <expr> ) getline('.')[col('.')-1] ==# ')' ? '<C-g>U<Right>' : ')'
"""


def test_an_entry_is_taken_once_and_shares_its_request_with_ghost_text(nvim, engine, edit, plugin):
    engine.completions = {"x = va": "lue + 1"}
    edit("")
    type_into(nvim, "x = va")
    plugin.wait_for_entry(nvim, "value + 1")
    assert set(plugin.entries(nvim)) == {"valley", "value + 1"}
    assert nvim.screen.lines[0] == "x = value + 1" and nvim.buffer == ["x = va"]
    assert len([asked for asked in engine.asked if asked.prefix == "x = va"]) == 1
    warmed = len(engine.warmed)
    plugin.confirm(nvim, "value + 1")
    assert nvim.buffer == ["x = value + 1"] and nvim.cursor == (0, 13)
    nvim.wait_for(lambda: len(engine.warmed) > warmed, "the server to hear of the acceptance")
    assert not is_visible(nvim) and nvim.screen.lines[0] == "x = value + 1"


def test_both_are_there_at_every_character(nvim, engine, edit, plugin):
    """Ghost text and the source ask at the same moment: the newer request would supersede the older."""
    text = "counter(a, b)"
    engine.completions = {text[:length]: text[length:] for length in range(3, 0, -1)}
    for _ in range(3):
        edit("")
        nvim.keys("i")
        for length in range(1, 4):
            nvim.type(text[length - 1])
            wait_for_ghost(nvim)
            plugin.wait_for_entry(nvim, text)
        nvim.keys("<Esc>")
        plugin.wait_until_closed(nvim)


def test_typing_on_asks_the_engine_nothing(nvim, engine, edit, plugin):
    engine.completions = {"x = v": "alue_of(1)"}
    edit("")
    type_into(nvim, "x = v")
    plugin.wait_for_entry(nvim, "value_of(1)")
    asked = len(engine.asked)
    for character in "alue":
        nvim.type(character)
        plugin.wait_for_entry(nvim, "value_of(1)")
    assert plugin.entries(nvim) == ["value_of(1)"]
    assert len(engine.asked) == asked
    plugin.confirm(nvim, "value_of(1)")
    assert nvim.buffer == ["x = value_of(1)"]


def test_several_lines(nvim, engine, edit, plugin):
    engine.completions = {"f():\n    r": "es = {\n        1: 2,\n    }\n    return res"}
    edit("last\n")
    nvim.keys("O")
    nvim.type("def f():\nr")
    wait_for_ghost(nvim)
    plugin.wait_for_entry(nvim, "res = { ⋯")
    nvim.keys("<C-n>" if plugin is NVIM_CMP else "<C-space>")
    nvim.wait_for_screen("    1: 2,", "return res")
    plugin.confirm(nvim, "res = { ⋯")
    assert nvim.buffer == ["def f():", "    res = {", "        1: 2,", "    }", "    return res", "last"]
    assert nvim.cursor == (4, 14)


@pytest.mark.parametrize(
    ("before", "answer"),
    [("y = n-1", "0 + k"), ("café", "_au_lait()"), ("'👩‍🚀' + na", "me + '漢字'"), ("a.b", "c.d()")],
)
def test_words_of_other_characters(nvim, engine, edit, plugin, before, answer):
    """The plugins do not agree what a word is: nvim-cmp asks 'iskeyword', blink.cmp counts the hyphen in."""
    engine.completions = {before: answer}
    edit("")
    type_into(nvim, before)
    label = nvim.wait_for(lambda: next((e for e in plugin.entries(nvim) if e.endswith(answer)), None))
    plugin.confirm(nvim, label)
    assert nvim.buffer == [before + answer]


def test_closers_right_of_the_cursor_are_replaced(nvim, engine, edit, plugin):
    engine.completions = {"f(co": "unt, 1) + 2"}
    edit("")
    for line in PAIRS.strip().split("\n"):
        nvim.command(line)
    type_into(nvim, "f(co")
    assert nvim.buffer == ["f(co)"]
    plugin.confirm(nvim, "count, 1) + 2")
    assert nvim.buffer == ["f(count, 1) + 2"] and nvim.cursor == (0, 15)


def test_a_file_with_windows_line_ends(nvim, engine, edit, plugin):
    engine.completions = {"a = b": "1\nc = b"}
    path = edit("", line_end="\r\n")
    nvim.command("setlocal fileformat=dos")
    type_into(nvim, "a = b")
    plugin.confirm(nvim, "b1 ⋯")
    assert nvim.buffer == ["a = b1", "c = b"]
    nvim.keys("<Esc>:w<CR>")
    assert path.read_bytes() == b"a = b1\r\nc = b\r\n"


def test_an_answer_that_came_after_more_was_typed(nvim, engine, edit, plugin):
    """The server answers for the newest text: the entry must begin where the plugin's word does."""
    engine.completions = {"x = c": "ount_all(values)"}
    engine.forward_s = 0.05
    edit("")
    nvim.keys("i")
    nvim.type("x = c")
    nvim.wait_for(lambda: engine.num_forwards > 0, "the engine's work")
    nvim.type("ou")
    plugin.confirm(nvim, "count_all(values)")
    assert nvim.buffer == ["x = count_all(values)"]


def test_other_entries_stay_after_a_trigger_character(nvim, engine, edit, plugin):
    """nvim-cmp shows only the sources that were called by a symbol, if one of them has entries."""
    engine.completions = {"x.": "value + 1", "x.val": "ue + 1"}
    edit("")
    type_into(nvim, "x.")
    plugin.wait_for_entry(nvim, "value + 1")
    nvim.type("val")
    nvim.wait_for(lambda: set(plugin.entries(nvim)) == {"valley", "value + 1"}, "both entries")


@pytest.mark.parametrize("character", list("([{,=:/ "))
def test_no_menu_opens_where_the_next_key_is_meant_for_the_text(nvim, engine, edit, plugin, character):
    """Many confirm the first entry by <CR>: after a colon or a bracket that key is a new line."""
    engine.completions = {f"x{character}": "value"}
    edit("")
    type_into(nvim, f"x{character}")
    time.sleep(0.3)
    assert plugin.entries(nvim) == [] and is_visible(nvim)


def test_the_menu_of_words_alone_is_left_alone(nvim, engine, edit, plugin):
    edit("")
    nvim.keys("i")
    nvim.type("co")
    plugin.wait_for_entry(nvim, WORDS[0])
    plugin.confirm(nvim, WORDS[1])
    assert text_of(nvim) == WORDS[1]


@pytest.mark.parametrize("plugin", PLUGINS[:1], indirect=True)
@pytest.mark.parametrize("typed", ["nt(", "nt(a"])
def test_closers_that_were_added_since_it_was_asked_for_leave_nothing_stray(plugin, engine, own, typed):
    """A menu that is opened by hand keeps its entries while the user types on; blink.cmp closes it at a bracket."""
    engine.completions = {"pri": "nt(a, b) or 1"}
    nvim = own("completion = { autocomplete = false }", enabled=False)
    for line in PAIRS.strip().split("\n"):
        nvim.command(line)
    nvim.type("pri")
    nvim.lua("vim.schedule(function() require('cmp').complete() end)")
    plugin.wait_for_entry(nvim, "print(a, b) or 1")
    nvim.type(typed)
    plugin.confirm(nvim, "print(a, b) or 1")
    nvim.wait_for(lambda: nvim.buffer[0] == "print(a, b) or 1")
    assert nvim.cursor == (0, 16)


@pytest.mark.parametrize("plugin", PLUGINS[1:], indirect=True)
def test_ordinary_completion_items_of_the_server(plugin, engine, own):
    """Without ghost text the server has items for sources of language servers; nvim-cmp's is a third plugin."""
    engine.completions = {"x = co": "unt(\n    values)"}
    nvim = own("sources = { default = { 'lsp' } }", enabled=False)
    nvim.type("x = co")
    plugin.confirm(nvim, "count(")
    assert nvim.buffer[:2] == ["x = count(", "    values)"]
