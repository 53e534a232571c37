"""Instruction edits in a real Neovim: the preview, the hunks, one undo step, and the ways in which text is stale."""

import json
import time

import pytest
from helpers.neovim_unmask import edit_state, errors_of, text_of, wait_for_hunks, wait_for_no_edit

from diffusion_core.errors import Overloaded
from diffusion_core.requests import FinishReason

TEXT = "import os\n\n\ndef f(a):\n    x = a\n    y = x\n    return y\n\n\nprint(f(1))\n"
EDITED = "def f(a: int):\n    x = a\n    y = x\n    return x\n"
LINES = TEXT.rstrip("\n").split("\n")


def begin(nvim, engine, edit, *, text=TEXT, edited=EDITED, lines="4,7", **options):
    """A file, and an edit of some of its lines under way."""
    engine.edits = {"do": edited}
    path = edit(text, **options)
    nvim.command(f"{lines}Unmask edit do")
    return path


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
    assert time.monotonic() - start > 0.2 and len(seen) > 4
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


@pytest.mark.parametrize("where", ["above", "below", "above and below"])
@pytest.mark.parametrize("when", ["running", "deciding"])
def test_changes_elsewhere_move_the_edit(nvim, engine, edit, when, where):
    engine.forward_s = 0.05 if when == "running" else 0
    begin(nvim, engine, edit)
    if when == "running":
        nvim.wait_for(lambda: engine.num_forwards > 2)
    else:
        wait_for_hunks(nvim)
    if "above" in where:
        nvim.keys("ggOimport sys<Esc>")
    if "below" in where:
        nvim.keys("Goend()<Esc>")
    wait_for_hunks(nvim)
    nvim.wait_for_screen("1/2")
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    edited = [*LINES[:3], "def f(a: int):", "    x = a", "    y = x", "    return x", *LINES[7:]]
    above, below = ["import sys"] * ("above" in where), ["end()"] * ("below" in where)
    assert nvim.buffer == [*above, *edited, *below]


@pytest.mark.parametrize("when", ["running", "deciding"])
def test_changes_inside_make_the_edit_stale_until_they_are_undone(nvim, engine, edit, when):
    engine.forward_s = 0.05 if when == "running" else 0
    begin(nvim, engine, edit)
    if when == "running":
        nvim.wait_for(lambda: engine.num_forwards > 2)
    else:
        wait_for_hunks(nvim)
    nvim.keys("5GA + 1<Esc>")
    wait_for_hunks(nvim)
    nvim.wait_for_screen("the text was changed", "ghg run again")
    changed = [*LINES[:4], "    x = a + 1", *LINES[5:]]
    nvim.keys("ghA")
    assert edit_state(nvim) == "deciding" and nvim.buffer == changed
    assert any("cannot be accepted" in message for message in nvim.messages)
    nvim.keys("u")
    nvim.wait_for_screen("/2  gha accept")
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3:7] == ["def f(a: int):", "    x = a", "    y = x", "    return x"]


def test_a_deleted_line_that_comes_back_makes_the_edit_right_again(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    for line in (4, 5, 7):
        nvim.keys(f"{line}Gdd")
        nvim.wait_for_screen("the text was changed")
        nvim.keys("u")
        nvim.wait_for_screen("/2  gha accept")
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3] == "def f(a: int):"


# Accepts and changes the text in one go: the language server decides before it hears of the change.
RACE = """
require('unmask.edit').of(vim.api.nvim_get_current_buf()):accept_all()
vim.api.nvim_buf_set_lines(0, ...)
"""


@pytest.mark.parametrize("was_changed", [False, True], ids=["version 0", "later version"])
@pytest.mark.parametrize(("row", "place"), [(4, "inside"), (0, "elsewhere")])
def test_a_change_that_crosses_with_the_acceptance_is_never_overwritten(nvim, engine, edit, was_changed, row, place):
    engine.edits = {"do": EDITED}
    edit(TEXT)
    if was_changed:
        nvim.keys("Goend()<Esc>")
    before = nvim.buffer
    nvim.command("4,7Unmask edit do")
    wait_for_hunks(nvim)
    assert (nvim.lua("return vim.lsp.util.buf_versions[vim.api.nvim_get_current_buf()]") == 0) is not was_changed
    nvim.lua(RACE, row, row + 1, True, ["changed meanwhile"])
    wait_for_no_edit(nvim)
    expected = [*before[:row], "changed meanwhile", *before[row + 1 :]]
    assert nvim.buffer == expected
    nvim.wait_for(lambda: any("Nothing was changed" in message for message in nvim.messages))


def test_a_change_of_another_version_is_refused_whoever_sends_it(nvim, engine, edit):
    edit(TEXT)
    nvim.command("lua require('unmask.client').attach(vim.api.nvim_get_current_buf())")
    nvim.wait_for(lambda: nvim.lua("return require('unmask.client').of(vim.api.nvim_get_current_buf()) ~= nil"))
    handle = """
    local client = vim.lsp.get_clients({ name = 'unmask' })[1]
    local first_line = { start = { line = 0, character = 0 }, ['end'] = { line = 1, character = 0 } }
    local params = { edit = { documentChanges = { {
      textDocument = { uri = vim.uri_from_bufnr(0), version = ... },
      edits = { { range = first_line, newText = '' } },
    } } } }
    return require('unmask.edit.apply').handle(params, { client_id = client.id })
    """
    nvim.keys("Goend()<Esc>")
    before = nvim.buffer
    for version in (0, 1, 99999, None):
        answer = nvim.lua(handle, version)
        assert answer["applied"] is False and "version" in answer["failureReason"]
        assert nvim.buffer == before
    version = nvim.lua("return vim.lsp.util.buf_versions[vim.api.nvim_get_current_buf()]")
    assert nvim.lua(handle, version) == {"applied": True}
    assert nvim.buffer == before[1:]


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


def test_running_it_again_uses_the_text_as_it_is_now(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys("5GA + 1<Esc>")
    nvim.wait_for_screen("the text was changed")
    engine.edits = {"do": EDITED.replace("x = a", "x = a + 1")}
    nvim.keys("ghg")
    nvim.wait_for_screen("1/2")
    assert engine.asked_edits[-1].selection == "def f(a):\n    x = a + 1\n    y = x\n    return y\n"
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3:7] == ["def f(a: int):", "    x = a + 1", "    y = x", "    return x"]


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
    nvim.keys("]hghr[hghd")
    assert nvim.lua("return #vim.api.nvim_list_tabpages()") == 2
    assert nvim.buffer == [*LINES[:3], "def f(a: int):", *LINES[4:]]  # the second hunk was rejected
    assert nvim.lua("return vim.wo.diff") and not nvim.lua("return vim.bo.modifiable")
    nvim.keys("q")
    assert nvim.lua("return #vim.api.nvim_list_tabpages()") == 1 and edit_state(nvim) == "deciding"
    nvim.keys("ghR")


@pytest.mark.parametrize("when", ["running", "deciding"])
def test_a_buffer_that_is_deleted_during_an_edit(nvim, engine, edit, when):
    engine.forward_s = 0.05 if when == "running" else 0
    begin(nvim, engine, edit)
    if when == "running":
        nvim.wait_for(lambda: engine.num_forwards > 2)
    else:
        wait_for_hunks(nvim)
    nvim.command("bwipeout!")
    nvim.wait_for(lambda: not nvim.lua("return next(require('unmask.edit').all())"))
    nvim.wait_for(lambda: when == "deciding" or engine.num_forwards < 20)
    assert errors_of(nvim) == ""
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys("ghR")


def test_a_reloaded_file_ends_its_edit(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.command("edit!")
    wait_for_no_edit(nvim)
    assert nvim.buffer == LINES


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


def test_the_last_check_compares_the_text_and_what_was_accepted(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    check = """
    local review = require('unmask.edit').of(vim.api.nvim_get_current_buf()).review
    review:accept_open()
    return review:check(vim.json.decode(...))
    """
    whole = {"start": {"line": 3, "character": 0}, "end": {"line": 4, "character": 0}}
    last = {"start": {"line": 6, "character": 0}, "end": {"line": 7, "character": 0}}
    first_edit = {"range": whole, "newText": "def f(a: int):\n"}
    second_edit = {"range": last, "newText": "    return x\n"}
    assert nvim.lua(check, json.dumps([first_edit, second_edit])) is None
    assert "2 were accepted" in nvim.lua(check, json.dumps([first_edit]))
    assert "change 2 is not" in nvim.lua(check, json.dumps([first_edit, {**second_edit, "newText": "    evil()\n"}]))
    assert "change 1 is not" in nvim.lua(check, json.dumps([{**first_edit, "range": last}, second_edit]))
    nvim.lua("vim.api.nvim_buf_set_lines(0, 4, 5, true, { 'changed' })")
    assert "changed meanwhile" in nvim.lua(check, json.dumps([first_edit, second_edit]))
    nvim.keys("ghR")


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


@pytest.mark.parametrize("where", ["inside", "above"])
def test_the_text_changes_while_the_instruction_is_typed(nvim, engine, edit, where):
    engine.edits = {"do": EDITED}
    edit(TEXT)
    buffer = nvim.request("nvim_get_current_buf")
    nvim.command("4,7Unmask edit")
    nvim.wait_for_screen("Unmask: edit 4 lines")
    if where == "inside":
        nvim.request("nvim_buf_set_lines", buffer, 4, 5, True, ["    x = 2"])
    else:
        nvim.request("nvim_buf_set_lines", buffer, 0, 0, True, ["above"])
    nvim.type("do")
    nvim.keys("<CR>")
    if where == "inside":
        nvim.wait_for(lambda: any("start the edit again" in message for message in nvim.messages))
        assert engine.asked_edits == [] and edit_state(nvim) == ""
        return
    wait_for_hunks(nvim)
    assert engine.asked_edits[-1].selection == "\n".join(LINES[3:7]) + "\n"
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer == ["above", *LINES[:3], "def f(a: int):", "    x = a", "    y = x", "    return x", *LINES[7:]]
