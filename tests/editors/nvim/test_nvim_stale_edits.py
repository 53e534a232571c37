"""Text that changes while an edit is made or decided about: moved, refused, told, and never overwritten."""

import json

import pytest
from helpers.neovim_edits import EDITED, LINES, TEXT, begin
from helpers.neovim_unmask import edit_state, errors_of, wait_for_hunks, wait_for_no_edit


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


FORMAT = """
local lines = vim.api.nvim_buf_get_lines(0, 0, -1, false)
local whole = { start = { line = 0, character = 0 }, ['end'] = { line = #lines, character = 0 } }
local text = 'import re\\n' .. table.concat(lines, '\\n') .. '\\n'
vim.lsp.util.apply_text_edits({ { range = whole, newText = text } }, vim.api.nvim_get_current_buf(), 'utf-8')
"""


@pytest.mark.parametrize(
    ("change", "shift"),
    [("%!cat", 0), ("%!sed '1i import re'", 1), (f"lua {FORMAT}", 1), ("4,7move $", 3), ("2,2d", -1)],
    ids=["filter", "filter that adds a line", "formatter", "move", "deletion above"],
)
def test_a_change_over_the_border_leaves_the_edit_where_its_text_is(nvim, engine, edit, change, shift):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    if change.startswith("lua "):
        nvim.lua(change.removeprefix("lua "))
    else:
        nvim.command(change)
    nvim.wait_for_screen("/2  gha accept")
    expected = nvim.buffer
    first = 3 + shift
    assert expected[first : first + 4] == LINES[3:7]
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    expected[first], expected[first + 3] = "def f(a: int):", "    return x"
    assert nvim.buffer == expected


@pytest.mark.parametrize("change", ["3GdG", ":%s/[a-z]/z/<CR>", ":silent %!cat -n<CR>", "4G4dd", ":5,9!tac<CR>"])
def test_undoing_a_change_over_the_border_makes_the_edit_right_again(nvim, engine, edit, change):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys(change)
    nvim.wait_for_screen("the text was changed")
    assert nvim.buffer != LINES
    nvim.keys("u")
    nvim.wait_for_screen("/2  gha accept")
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer == [*LINES[:3], "def f(a: int):", "    x = a", "    y = x", "    return x", *LINES[7:]]


@pytest.mark.parametrize("change", ["1GJ", "5GJ", "1G2J"])
def test_a_line_that_was_joined_with_one_outside_comes_back(nvim, engine, edit, change):
    begin(nvim, engine, edit, text="\n".join([LINES[0], *LINES[3:7], LINES[9], ""]), lines="2,5")
    wait_for_hunks(nvim)
    nvim.keys(change)
    nvim.wait_for_screen("the text was changed")
    nvim.keys("u")
    nvim.wait_for_screen("/2  gha accept")
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer == [LINES[0], "def f(a: int):", "    x = a", "    y = x", "    return x", LINES[9]]


def test_a_change_of_as_many_lines_keeps_the_rows_of_the_edit(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys(":%s/ = / =  /e<CR>")
    nvim.wait_for_screen("the text was changed", "ghg run again")
    num_asked = len(engine.asked_edits)
    nvim.keys("ghg")
    nvim.wait_for(lambda: len(engine.asked_edits) > num_asked)
    assert engine.asked_edits[-1].selection == "def f(a):\n    x =  a\n    y =  x\n    return y\n"
    nvim.keys("ghR")


OVER_THE_BORDER = ":lua vim.api.nvim_buf_set_lines(0, 2, 5, true, {'z'})<CR>"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (OVER_THE_BORDER, "went over the border"),
        (":silent %!cat -n | head -8<CR>", "are gone"),
        ("4G4dd", "are gone"),
    ],
)
def test_lines_that_are_not_known_are_not_edited_again(nvim, engine, edit, change, problem):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys(change)
    nvim.wait_for_screen("the text was changed")
    assert "run again" not in nvim.screen.text
    nvim.keys("ghg")
    nvim.wait_for(lambda: any(problem in m and "start another one" in m for m in nvim.messages))
    assert edit_state(nvim) == "deciding" and len(engine.asked_edits) == 1
    nvim.keys("ghR")
    wait_for_no_edit(nvim)


def test_a_copy_is_not_taken_for_the_lines_of_the_edit(nvim, engine, edit):
    begin(nvim, engine, edit)
    wait_for_hunks(nvim)
    nvim.keys("4G4yyGp")
    nvim.keys("5GA + 1<Esc>Goend<Esc>")
    nvim.wait_for_screen("the text was changed")
    nvim.keys("ghA")
    assert edit_state(nvim) == "deciding" and any("cannot be accepted" in message for message in nvim.messages)
    nvim.keys("ghR")
    wait_for_no_edit(nvim)
