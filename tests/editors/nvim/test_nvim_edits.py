"""Instruction edits in a real Neovim: the prompt, the preview, the hunks, and one undo step."""

import time

import pytest
from helpers.neovim_edits import EDITED, LINES, TEXT, begin
from helpers.neovim_unmask import edit_state, text_of, wait_for_hunks, wait_for_no_edit

from diffusion_core.errors import Overloaded
from diffusion_core.requests import FinishReason


def test_the_preview_streams_into_the_window_and_never_into_the_buffer(nvim, engine, edit):
    engine.forward_s = 0.04
    begin(nvim, engine, edit)
    tick = nvim.lua("return vim.b.changedtick")
    nvim.wait_for_screen("def f(a: int):", "ghR cancel")
    start = time.monotonic()
    seen = set()
    while edit_state(nvim) == "running":
        assert text_of(nvim) == TEXT.rstrip("\n") and nvim.lua("return vim.b.changedtick") == tick
        seen.add(nvim.screen.text)
        time.sleep(0.01)
    assert time.monotonic() - start > 0.2 and len(seen) > 2
    assert nvim.lua("return vim.b.changedtick") == tick and not nvim.lua("return vim.bo.modified")
    nvim.wait_for_screen("1/2  gha accept")
    nvim.keys("ghR")
    wait_for_no_edit(nvim)
    nvim.wait_for(lambda: nvim.screen.lines[: len(LINES)] == tuple(LINES))
    assert text_of(nvim) == TEXT.rstrip("\n")


def highlight_at(nvim, text):
    """The highlight of the first cell of a text on the screen."""
    for row, line in enumerate(nvim.screen.lines):
        if text in line:
            return nvim.screen.highlights.get(nvim.screen.rows[row][line.index(text)].highlight, {})
    raise AssertionError(f"{text} is not on the screen:\n{nvim.screen.text}")


def colour(nvim, group, which):
    return nvim.lua("return vim.api.nvim_get_hl(0, { name = ..., link = false })", group)[which]


def test_what_is_unsettled_is_dimmed_and_hunks_are_coloured(nvim, engine, edit):
    engine.forward_s = 0.15
    begin(nvim, engine, edit)
    nvim.wait_for_screen("def f(a: i")
    assert highlight_at(nvim, "y = x")["foreground"] == colour(nvim, "UnmaskOld", "fg")
    engine.forward_s = 0
    wait_for_hunks(nvim)
    nvim.wait_for_screen("1/2")
    assert highlight_at(nvim, "def f(a):")["background"] == colour(nvim, "UnmaskDelete", "bg")
    assert highlight_at(nvim, "def f(a: int):")["background"] == colour(nvim, "UnmaskAdd", "bg")
    assert highlight_at(nvim, ": int")["background"] == colour(nvim, "UnmaskAddText", "bg")
    assert "background" not in highlight_at(nvim, "y = x")
    row = next(row for row, line in enumerate(nvim.screen.lines) if "def f(a: int):" in line)
    last = nvim.screen.highlights[nvim.screen.rows[row][-1].highlight]
    assert last["background"] == colour(nvim, "UnmaskAdd", "bg")  # the background reaches the window's edge
    nvim.keys("ghR")


@pytest.mark.parametrize(
    ("settled", "unsettled", "shown"),
    [
        ("def f(a: int):\n    z", " = a\n    y = x\n    return y\n", ["    z = a", *LINES[4:7]]),
        ("def f(a: int):\n    z", " = a\n    y = 2\n    return y\n\n", ["    z = a", "    y = 2", *LINES[4:7]]),
        ("def f(a: int):\n", "    x = a\n    y = x\n    return y", LINES[4:7]),
        ("def f(a: int):\n", "    x = a\n    y = x\n    return x", [*LINES[4:6], "    return x", *LINES[4:7]]),
        ("def f(a: int):\n", "", LINES[4:7]),
        ("def f(a: int):\n    x = a\n    y = x\n    return", " y\n", [*LINES[4:6], "    return y", LINES[6]]),
    ],
)
def test_a_guess_is_shown_up_to_where_it_goes_on_like_the_old_text(nvim, edit, settled, unsettled, shown):
    edit(TEXT)
    track = {"first": 3, "lines": LINES[3:7]}
    nvim.lua("require('unmask.edit.render').preview(0, ...)", track, settled, unsettled)
    expected = (*LINES[:4], "def f(a: int):", *shown, *LINES[7:])
    nvim.wait_for(lambda: nvim.screen.lines[: len(expected)] == expected, "the preview, and nothing else")


def test_one_hunk_is_accepted_another_rejected_and_one_undo_takes_it_back(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    assert nvim.cursor == (3, 0)
    nvim.keys("]h")
    assert nvim.cursor == (6, 0)
    nvim.keys("[h")
    assert nvim.cursor == (3, 0)
    nvim.keys("gha")
    assert nvim.cursor == (6, 0) and text_of(nvim) == TEXT.rstrip("\n")
    nvim.wait_for_screen("✓ accepted", "2/2  gha accept")
    nvim.keys("ghr")
    wait_for_no_edit(nvim)
    assert nvim.buffer == [*LINES[:3], "def f(a: int):", *LINES[4:]]
    nvim.keys("u")
    assert nvim.buffer == LINES and not nvim.lua("return vim.bo.modified")
    nvim.keys("<C-r>")
    assert nvim.buffer[3] == "def f(a: int):"


def test_undo_takes_back_the_edit_only_and_all_of_it(nvim, engine, edit):
    engine.edits = {"do": EDITED}
    edit(TEXT)
    nvim.keys("ggx")
    nvim.command("4,7Unmask edit do")
    wait_for_hunks(nvim)
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3] == "def f(a: int):" and nvim.buffer[6] == "    return x"
    nvim.keys("u")
    assert nvim.buffer == ["mport os", *LINES[1:]]
    nvim.keys("u")
    assert nvim.buffer == LINES


def test_rejecting_every_hunk_changes_nothing(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys("ghrghr")
    wait_for_no_edit(nvim)
    assert nvim.buffer == LINES and not nvim.lua("return vim.bo.modified")
    assert nvim.lua("return vim.fn.maparg('gha', 'n')") == ""


@pytest.mark.parametrize(
    ("text", "edited", "lines", "expected"),
    [
        pytest.param("b\nc\n", "a\nb\nc\n", "1,2", "a\nb\nc\n", id="insertion above the first line"),
        pytest.param("b\nc\n", "b\nc\nd\n", "1,2", "b\nc\nd\n", id="insertion after the last line"),
        pytest.param("a\nb\nc\n", "a\nc\n", "1,3", "a\nc\n", id="deletion"),
        pytest.param("a\nb", "a\nB\nc", "1,2", "a\nB\nc", id="no line end at the end of the file"),
        pytest.param("a\n\nb\n", "new = '👩‍🚀'\n", "2,2", "a\nnew = '👩‍🚀'\nb\n", id="a blank line, and an emoji"),
        pytest.param("\tif x:\n\t\ty\n", "\tif z:\n\t\ty\n", "1,2", "\tif z:\n\t\ty\n", id="tabs"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["unix", "dos"])
def test_places_of_hunks(nvim, engine, edit, text, edited, lines, expected, line_end):
    path = begin(nvim, engine, edit, text=text, edited=edited, lines=lines, line_end=line_end)
    nvim.command("setlocal nofixendofline")
    wait_for_hunks(nvim)
    nvim.wait_for_screen("1/")
    added = [line for line in edited.split("\n") if line and line not in text]
    shown = [line.expandtabs(nvim.lua("return vim.bo.tabstop")) for line in added]
    nvim.wait_for_screen(*shown)
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    nvim.command("write")
    assert path.read_bytes() == expected.replace("\n", line_end).encode()


def test_an_answer_that_was_cut_short_or_is_empty_or_fails(nvim, engine, edit):
    for finish, edited, error, message in (
        (FinishReason.LENGTH, EDITED, None, "cut short"),
        (FinishReason.STOP, "", None, "gave no text"),
        (FinishReason.STOP, "def f(a):\n    x = a\n    y = x\n    return y\n", None, "as it is"),
        (FinishReason.STOP, EDITED, Overloaded("64 requests are waiting: try again"), "are waiting"),
    ):
        engine.edit_finish, engine.error = finish, error
        begin(nvim, engine, edit, edited=edited)
        nvim.wait_for(lambda text=message: any(text in shown for shown in nvim.messages), message)
        wait_for_no_edit(nvim)
        assert nvim.buffer == LINES


def test_cancelling_and_starting_another_edit_at_once(nvim, engine, edit):
    engine.forward_s = 0.05
    begin(nvim, engine, edit)
    nvim.wait_for(lambda: engine.num_forwards > 2)
    engine.edits = {"other": EDITED}
    engine.forward_s = 0
    nvim.command("4,7Unmask edit other")
    wait_for_hunks(nvim)
    assert [request.instruction for request in engine.asked_edits] == ["do", "other"]
    assert nvim.messages == ["Unmask: the edit was cancelled."]
    nvim.keys("ghR")
    wait_for_no_edit(nvim)


def test_the_diff_in_a_tab(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    buffers = nvim.request("nvim_list_bufs")
    nvim.keys("]hghr[hghd")
    assert nvim.lua("return #vim.api.nvim_list_tabpages()") == 2
    assert nvim.buffer == [*LINES[:3], "def f(a: int):", *LINES[4:]]  # the second hunk was rejected
    assert nvim.lua("return vim.wo.diff") and not nvim.lua("return vim.bo.modifiable")
    nvim.keys("q")
    assert nvim.lua("return #vim.api.nvim_list_tabpages()") == 1 and edit_state(nvim) == "deciding"
    assert nvim.request("nvim_list_bufs") == buffers
    assert not nvim.lua("return vim.wo.diff")
    nvim.keys("ghR")


def test_the_prompt_asks_with_history_and_the_scope_is_highlighted(nvim, engine, edit):
    engine.edits = {"add types": EDITED, "first": EDITED}
    edit(TEXT)
    nvim.keys("4GVjjj:Unmask edit<CR>")
    nvim.wait_for_screen("Unmask: edit 4 lines", "⏎ edit")
    assert nvim.mode == "i"
    scope = nvim.lua(
        "return vim.tbl_map(function(mark) return mark[2] end, vim.api.nvim_buf_get_extmarks("
        "vim.fn.bufnr('#') > 0 and vim.fn.bufnr(vim.fn.getbufinfo({ buflisted = 1 })[1].bufnr) or 0, "
        "vim.api.nvim_create_namespace('unmask.edit'), 0, -1, {}))"
    )
    assert scope == [3, 4, 5, 6]
    nvim.type("first")
    nvim.keys("<CR>")
    wait_for_hunks(nvim)
    assert nvim.mode == "n"
    nvim.keys("ghR")
    nvim.keys("4GVjjj:Unmask edit<CR>")
    nvim.wait_for_screen("Unmask: edit 4 lines")
    nvim.type("draft")
    nvim.keys("<Up>")
    assert nvim.buffer == ["first"]
    nvim.keys("<Down>")
    assert nvim.buffer == ["draft"]
    nvim.keys("<Esc>")
    nvim.wait_for(lambda: nvim.buffer == LINES)
    assert nvim.mode == "n" and edit_state(nvim) == ""
    assert engine.asked_edits[-1].instruction == "first"


def test_the_client_command_of_a_code_action(nvim, engine, edit):
    engine.edits = {"add types": EDITED}
    edit(TEXT)
    run = """
    local range = { start = { line = 3, character = 0 }, ['end'] = { line = 7, character = 0 } }
    local version = ... ~= vim.NIL and ... or nil
    vim.lsp.commands['unmask.client.edit']({ title = 'Unmask: add type hints', command = 'unmask.client.edit',
      arguments = { { uri = vim.uri_from_bufnr(0), range = range, version = version, instruction = 'add types' } } })
    """
    nvim.lua(run, None)
    wait_for_hunks(nvim)
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3] == "def f(a: int):"
    nvim.lua(run, 0)
    nvim.wait_for(lambda: any("ask for actions again" in message for message in nvim.messages))
    assert edit_state(nvim) == ""


def test_lines_that_come_have_the_syntax_colours_of_the_buffer(nvim, engine, edit):
    """Neovim brings a parser for Lua, and its own file type plugin uses it."""
    edited = "local function twice(value)\n  return 2 * value -- 漢字\nend\n"
    begin(nvim, engine, edit, text="print(1)\n", edited=edited, lines="1,1", name="a.lua")
    nvim.command("lua vim.treesitter.start()")
    wait_for_hunks(nvim)
    nvim.lua("require('unmask.edit').of(vim.api.nvim_get_current_buf()):draw()")
    nvim.wait_for_screen("local function twice(value)", "  return 2 * value -- 漢字")
    plain, keyword, comment = (
        highlight_at(nvim, "value -- "),
        highlight_at(nvim, "return 2"),
        highlight_at(nvim, "-- 漢"),
    )
    assert keyword.get("bold") and not plain.get("bold") and comment["foreground"] == colour(nvim, "Comment", "fg")
    assert {cell["background"] for cell in (plain, keyword, comment)} == {colour(nvim, "UnmaskAdd", "bg")}
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert text_of(nvim) == edited.rstrip("\n")


def test_an_edit_does_not_join_the_undo_step_of_an_insertion(nvim, engine, edit):
    """The answer may come when the user types elsewhere already: all of an insertion is one step otherwise."""
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys("Gotail")
    nvim.lua("require('unmask.edit').of(vim.api.nvim_get_current_buf()):accept_all()")
    wait_for_no_edit(nvim)
    nvim.type(" end")
    nvim.keys("<Esc>")
    assert nvim.buffer[3] == "def f(a: int):" and nvim.buffer[-1] == "tail end"
    nvim.keys("u")
    assert nvim.buffer[3] == "def f(a: int):" and nvim.buffer[-1] == "tail"
    nvim.keys("u")
    assert nvim.buffer == [*LINES, "tail"]


def test_folds_over_an_edit_are_opened(nvim, engine, edit):
    engine.forward_s = 0.05
    engine.edits = {"do": EDITED}
    edit(TEXT)
    nvim.lua("vim.wo.foldenable, vim.wo.foldmethod = true, 'manual'")
    nvim.command("6,7fold | 4,7fold | 9,10fold | normal! gg")
    assert nvim.lua("return vim.fn.foldclosedend(4)") == 7
    nvim.command("4,7Unmask edit do")
    nvim.wait_for_screen("def f(a: int):")
    engine.forward_s = 0
    wait_for_hunks(nvim)
    nvim.wait_for_screen("return x", "2/2")
    assert nvim.lua("return vim.fn.foldclosed(9)") == 9  # what has no part in it stays closed
    nvim.keys("6GzM1G")
    assert nvim.lua("return vim.fn.foldclosed(7)") == 4
    nvim.keys("]h")
    nvim.wait_for_screen("return x", "2/2")
    nvim.keys("ghR")
    wait_for_no_edit(nvim)
