"""What is drawn is what accepting gives: suggestions of any shape, put up without a server."""

import pytest
from helpers.neovim import open_neovim

# Draws an item at the cursor as if a server had sent it; with `accept`, takes it.
SHOW = """
local buf, at = vim.api.nvim_get_current_buf(), vim.api.nvim_win_get_cursor(0)
local suggestion = require('unmask.ghost.suggestion')
local text, length, accept = ...
local row, col = at[1] - 1, at[2]
local position = require('unmask.position')
local first, last = position.to_lsp(buf, row, col, 'utf-8'), position.to_lsp(buf, row, col + length, 'utf-8')
local range = { start = first, ['end'] = last }
local one = suggestion.from_item({ insertText = text, range = range }, buf, row, col, 'utf-8')
local place = suggestion.place(one, row, col)
local render = require('unmask.ghost.render')
if accept then
  render.clear(buf)
  require('unmask.ghost.accept').insert(one, place, place.remaining)
else
  render.draw(buf, place)
end
"""


@pytest.fixture(scope="module")
def nvim(tmp_path_factory):
    with open_neovim(tmp_path_factory.mktemp("nvim"), "vim.o.laststatus = 0; vim.o.ruler = false", width=60) as nvim:
        nvim.command("lua require('unmask.highlights').define()")
        nvim.command("enew | setlocal tabstop=4 noexpandtab")
        yield nvim


CASES = {
    "at the end of a line": ("x = |", "1 + 2", 0),
    "several lines": ("def f():\n    |\nend", "a = 1\n\n    return a", 0),
    "before text": ("x = | + 1", "value", 0),
    "before text, several lines": ("f(|) # c", "a,\n  b", 0),
    "closer replaced by the same": ("f(|)", "a, b):", 1),
    "two closers replaced": ("f(g(|))", "a), b) + 1", 2),
    "closers replaced on a later line": ("f(|)", "a,\n  b)", 1),
    "something else replaced": ("x = |old + 1", "new_value", 3),
    "longer text replaced": ("x = |a_long_name + 1", "b", 11),
    "replaced, several lines": ("x = |old # c", "new(\n  1)", 3),
    "tabs": ("\tx|", "\t= 1\n\t\ty", 0),
    "a tab after wide characters": ("漢|", "字\tx", 0),
    "wide characters are replaced": ("'|漢字' + 1", "é", 6),
    "emoji": ("x = '|'", "👩‍🚀' + y", 1),
    "a long line that wraps": ("x = |", "a" * 70 + "\n" + "b" * 130, 0),
    "wide characters up to the edge": ("|", "x" * 58 + "漢\n" + "y" * 118 + "漢" * 3, 0),
    "first line empty": ("if x:|", "\n    y", 0),
    "first line empty, before closers": ("f(|)", "\n  a\n)", 1),
}


@pytest.mark.parametrize(("text", "insertion", "replaced"), CASES.values(), ids=CASES.keys())
def test_it_looks_like_what_it_becomes(nvim, text, insertion, replaced):
    before, after = text.split("|")
    lines = (before + after).split("\n")
    nvim.command("%delete _ | stopinsert")
    nvim.request("nvim_buf_set_lines", 0, 0, -1, True, lines)
    row, column = before.count("\n"), len(before.split("\n")[-1].encode())
    nvim.keys("i")
    nvim.request("nvim_win_set_cursor", 0, [row + 1, column])
    nvim.lua(SHOW, insertion, replaced)
    nvim.command("redraw")
    shown, cursor = nvim.screen.lines[:-1], nvim.screen.cursor
    assert nvim.buffer == lines
    nvim.lua(SHOW, insertion, replaced, True)
    nvim.command("redraw")
    end = text.index("|") + len(after.encode()[:replaced].decode())
    assert nvim.buffer == (before + insertion + (before + after)[end:]).split("\n")
    assert nvim.cursor == (row + insertion.count("\n"), len((before + insertion).split("\n")[-1].encode()))
    assert shown == nvim.screen.lines[:-1]
    assert cursor == (row, len(before.split("\n")[-1].expandtabs(4)) + before.split("\n")[-1].count("漢"))


def test_lines_that_do_not_fit_below_the_cursor_are_counted(nvim):
    nvim.command("%delete _ | stopinsert")
    nvim.request("nvim_buf_set_lines", 0, 0, -1, True, [f"line {number}" for number in range(40)])
    nvim.keys("22Gztzb$a")
    nvim.request("nvim_win_set_cursor", 0, [22, 7])
    nvim.lua(SHOW, " more\na\nb\nc\nd\ne", 0)
    nvim.command("redraw")
    height = nvim.lua("return vim.api.nvim_win_get_height(0)")
    below = height - nvim.lua("return vim.fn.winline()")
    assert below < 5
    assert any(f"⋯ {5 - below} more lines" in line for line in nvim.screen.lines)
    nvim.command("stopinsert")
