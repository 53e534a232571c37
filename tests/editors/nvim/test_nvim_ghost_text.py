"""Ghost text in a real Neovim: where it stands, typing through it, accepting it, and what it leaves alone."""

import time

import pytest
from helpers.neovim_unmask import is_visible, num_asked, text_of, wait_for_ghost

TWO_LINES = "total = sum(\n    values)"


def type_end(nvim, text):
    """Type at the end of the last line."""
    nvim.keys("G$a" if nvim.buffer[-1] else "Gi")
    nvim.type(text)


def test_it_stands_exactly_where_its_text_would(nvim, engine, edit):
    engine.completions = {"def add(a, b):\n    ": "c = a + b\n    return c"}
    edit("import os\n\n\ndef sub(): ...\n")
    nvim.keys("ggjo")
    nvim.type("def add(a, b):\n")
    wait_for_ghost(nvim)
    nvim.wait_for_screen("return c")
    assert nvim.screen.lines[:7] == (
        "import os", "", "def add(a, b):", "    c = a + b", "    return c", "", "def sub(): ...",
    )  # fmt: skip
    assert nvim.screen.cursor == (3, 4) and nvim.cursor == (3, 4)
    assert nvim.buffer == ["import os", "", "def add(a, b):", "    ", "", "def sub(): ..."]
    cell = nvim.screen.rows[3][4]
    comment = nvim.lua("return vim.api.nvim_get_hl(0, { name = 'Comment', link = false })")
    assert nvim.screen.highlights[cell.highlight]["foreground"] == comment["fg"]
    nvim.keys("<Tab>")
    assert nvim.buffer[2:5] == ["def add(a, b):", "    c = a + b", "    return c"]
    assert nvim.cursor == (4, 12) and nvim.mode == "i" and not is_visible(nvim)


def test_typing_through_it_never_hides_it_and_never_asks_again(nvim, engine, edit):
    engine.completions = {"x = ": "first_value + second_value"}
    edit("")
    type_end(nvim, "x = ")
    wait_for_ghost(nvim)
    nvim.wait_for_screen("x = first_value + second_value")
    begin, asked = time.monotonic(), num_asked(nvim)
    nvim.type("first_value + sec", pause_s=0.01)
    nvim.keys("<BS><BS>")
    nvim.type("econd", pause_s=0.01)
    frames = nvim.frames_since(begin)
    assert len(frames) > 10
    assert [frame.lines[0] for frame in frames if frame.lines[0] != "x = first_value + second_value"] == []
    assert num_asked(nvim) == asked and nvim.buffer == ["x = first_value + second"]
    nvim.keys("<Tab>")
    assert nvim.buffer == ["x = first_value + second_value"]


def test_typing_through_lines_of_it(nvim, engine, edit):
    engine.completions = {"def f():\n    ": "a = 1\n    return a"}
    edit("")
    type_end(nvim, "def f():\n")
    wait_for_ghost(nvim)
    asked = num_asked(nvim)
    nvim.type("a = 1\nret")
    nvim.wait_for_screen("    return a")
    assert num_asked(nvim) == asked and is_visible(nvim)
    nvim.keys("<Tab>")
    assert nvim.buffer == ["def f():", "    a = 1", "    return a"]


def test_typing_something_else_takes_it_away_and_asks(nvim, engine, edit):
    engine.completions = {"x = ": "value", "x = o": "ther"}
    edit("")
    type_end(nvim, "x = ")
    nvim.wait_for_screen("x = value")
    nvim.type("o")
    nvim.wait_for_screen("x = other")
    assert [request.prefix for request in engine.asked] == ["x = ", "x = o"]


def test_a_later_request_cancels_the_one_before(nvim, engine, edit):
    engine.completions = {"a = ": "x" * 400, "b = ": "done"}
    engine.forward_s = 0.02
    edit("end\n")
    nvim.keys("o")
    nvim.type("a = ")
    nvim.wait_for(lambda: engine.num_forwards > 1)
    nvim.keys("<C-o>gg<C-o>O")
    nvim.type("b = ")
    nvim.wait_for_screen("b = done")
    assert engine.num_cancelled == 1 and engine.num_forwards < 60
    assert nvim.lua("return _G.requests.cancelled") >= 1
    assert nvim.lua("return vim.tbl_count(vim.lsp.get_clients({ name = 'unmask' })[1].requests)") == 0


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["<M-Right>"], "total = sum"),
        (["<M-Right>", "<M-Right>"], "total = sum("),
        (["<M-Right>"] * 3, "total = sum(\n    values"),
        (["<M-C-Right>"], "total = sum("),
        (["<M-C-Right>"] * 2, "total = sum(\n    values)"),
        (["<M-Right>", "<Tab>"], "total = sum(\n    values)"),
    ],
)
def test_accepting_by_word_and_by_line(nvim, engine, edit, keys, expected):
    engine.completions = {"total = ": TWO_LINES.removeprefix("total = ")}
    edit("")
    type_end(nvim, "total = ")
    wait_for_ghost(nvim)
    asked = num_asked(nvim)
    for key in keys:
        nvim.keys(key)
        assert is_visible(nvim) == (text_of(nvim) != TWO_LINES)
    assert text_of(nvim) == expected
    assert nvim.cursor == (expected.count("\n"), len(expected.split("\n")[-1]))
    if expected != TWO_LINES:
        assert num_asked(nvim) == asked  # what remains is still shown, nothing was asked for it


def test_accepting_is_an_undo_step_of_its_own(nvim, engine, edit):
    engine.completions = {"x = ": "1 + 2"}
    edit("start\n")
    nvim.keys("o")
    nvim.type("x = ")
    wait_for_ghost(nvim)
    nvim.keys("<Tab><Esc>")
    assert nvim.buffer == ["start", "x = 1 + 2"]
    nvim.keys("u")
    assert nvim.buffer == ["start", "x = "]
    nvim.keys("u")
    assert nvim.buffer == ["start"]


PAIRS = """
inoremap <buffer> ( ()<C-g>U<Left>
inoremap <buffer> <expr> ) getline('.')[col('.')-1] ==# ')' ? '<C-g>U<Right>' : ')'
"""


@pytest.mark.parametrize("typed", ["", "(", "(a", "(a, b", "(a, b)"])
def test_closers_that_the_editor_adds_leave_nothing_stray(nvim, engine, edit, typed):
    engine.completions = {"print": "(a, b) or None"}
    edit("")
    for line in PAIRS.strip().split("\n"):
        nvim.command(line)
    type_end(nvim, "print")
    wait_for_ghost(nvim)
    asked = num_asked(nvim)
    nvim.type(typed)
    nvim.wait_for_screen("print(a, b) or None")
    assert nvim.screen.lines[0] == "print(a, b) or None"
    assert num_asked(nvim) == asked
    nvim.keys("<Tab>")
    assert nvim.buffer == ["print(a, b) or None"]


def test_a_closer_on_a_line_of_its_own_is_not_doubled(nvim, engine, edit):
    """Auto-pairs plugins make three lines of ``{}`` at Enter."""
    engine.completions = {"f() ": "{\n    a();\n}", "{\n    ": "a();\n}"}
    edit("f()\n", name="a.c")
    nvim.command("setlocal shiftwidth=4 expandtab")
    nvim.command("inoremap <buffer> { {}<C-g>U<Left>")
    nvim.command("inoremap <buffer> <CR> <CR><C-c>O")
    nvim.keys("A ")
    nvim.wait_for_screen("    a();")
    nvim.keys("{")
    nvim.wait_for_screen("    a();")
    nvim.keys("<CR>")
    nvim.wait_for(lambda: [line.strip() for line in nvim.screen.lines[:4]] == ["f() {", "a();", "}", "~"])
    nvim.keys("<Tab>")
    assert nvim.buffer == ["f() {", "    a();", "}"]


def test_a_closer_right_of_the_cursor_is_replaced_by_the_suggestions_own(nvim, engine, edit):
    engine.completions = {"def f(": "a, b):\n    return a"}
    edit("def f()\nend\n")
    nvim.keys("gg$i")
    wait_for_ghost(nvim)
    nvim.wait_for_screen("    return a")
    assert nvim.screen.lines[:3] == ("def f(a, b):", "    return a", "end")
    nvim.keys("<M-Right><M-Right><M-Right><M-Right>")
    assert nvim.buffer == ["def f(a, b):", "end"]
    nvim.keys("<C-]>")
    assert nvim.buffer == ["def f(a, b):", "end"]


def test_dismissing_it(nvim, engine, edit):
    engine.completions = {"x = ": "value", "x = y": "_axis"}
    edit("")
    type_end(nvim, "x = ")
    nvim.wait_for_screen("x = value")
    asked = num_asked(nvim)
    nvim.keys("<C-]>")
    assert not is_visible(nvim) and nvim.buffer == ["x = "]
    time.sleep(0.3)
    assert not is_visible(nvim) and num_asked(nvim) == asked and nvim.screen.lines[0] == "x ="
    nvim.type("y")
    nvim.wait_for_screen("x = y_axis")
    nvim.keys("<Esc>")
    assert not is_visible(nvim) and nvim.screen.lines[0] == "x = y"
    nvim.keys("a")
    nvim.wait_for_screen("x = y_axis")


def test_keys_are_only_taken_while_there_is_ghost_text(nvim, engine, edit):
    engine.completions = {"x = ": "value"}
    edit("")
    mapped = "return vim.fn.maparg('<Tab>', 'i', false, true).desc or ''"
    nvim.keys("i")
    assert "Unmask" not in nvim.lua(mapped)
    nvim.keys("<Tab>")
    assert nvim.buffer in (["\t"], ["    "])
    nvim.command("inoremap <buffer> <Tab> own")
    nvim.keys("<C-u>")
    nvim.type("x = ")
    wait_for_ghost(nvim)
    assert nvim.lua(mapped) == "Unmask: accept"
    nvim.keys("<C-]>")
    assert nvim.lua("return vim.fn.maparg('<Tab>', 'i')") == "own"
    nvim.keys("<Tab>")
    assert nvim.buffer == ["x = own"]


def test_a_file_with_windows_line_ends(nvim, engine, edit):
    engine.completions = {"def f():\n    ": "a = 1\n    return a"}
    path = edit("import os\ndef f():\nlast\n", line_end="\r\n")
    assert nvim.lua("return vim.bo.fileformat") == "dos"
    nvim.keys("ggjo")
    nvim.wait_for_screen("    a = 1", "    return a")
    nvim.keys("<Tab>")
    assert nvim.buffer == ["import os", "def f():", "    a = 1", "    return a", "last"]
    nvim.keys("<Esc>:w<CR>")
    assert path.read_bytes() == b"import os\r\ndef f():\r\n    a = 1\r\n    return a\r\nlast\r\n"


@pytest.mark.parametrize(
    ("before", "answer", "shown"),
    [
        ("name = '👩‍🚀 é' + ", "'漢字' + x", "name = '👩‍🚀 é' + '漢字' + x"),
        ("\tx = ", "1\t# one", "        x = 1   # one"),
        ("漢字 = ", "1\n\ty = 2", "漢字 = 1"),
    ],
)
def test_wide_characters_and_tabs(nvim, engine, edit, before, answer, shown):
    engine.completions = {before: answer}
    edit(f"{before}\nend\n")
    nvim.command("setlocal noexpandtab tabstop=8")
    nvim.keys("ggA")
    nvim.wait_for_screen(shown)
    lines = nvim.screen.lines
    assert nvim.cursor == (0, len(before.encode()))
    nvim.keys("<Tab>")
    assert text_of(nvim) == f"{before}{answer}\nend"
    nvim.wait_for(lambda: not is_visible(nvim))
    assert nvim.screen.lines[:4] == lines[:4]  # it looked like what it became


def test_with_a_menu_open_it_goes_on_from_the_selected_entry(nvim, engine, edit):
    engine.completions = {"counter": "_of_all = 0", "con": "X"}
    edit("counter constant\n")
    nvim.command("set completeopt=menuone,noinsert")
    nvim.keys("o")
    nvim.type("c")
    nvim.keys("<C-x><C-n>")
    nvim.wait_for(lambda: nvim.lua("return vim.fn.pumvisible()") == 1)
    nvim.wait_for_screen("counter_of_all = 0")
    assert nvim.buffer[1] == "c" and engine.asked[-1].prefix.endswith("counter")
    nvim.keys("<Tab>")
    assert nvim.buffer[1] == "counter_of_all = 0" and nvim.cursor == (1, 18)
    assert nvim.lua("return vim.fn.pumvisible()") == 0
    nvim.type("!")
    assert nvim.buffer[1] == "counter_of_all = 0!"


def test_triggering_by_hand_where_nothing_is_asked_by_itself(nvim, engine, edit):
    engine.completions = {"inside": "r_part"}
    edit("inside_word\n")
    nvim.keys("gg06la")
    nvim.keys("<Esc>06li")
    time.sleep(0.2)
    assert engine.asked == [] and not is_visible(nvim)
    engine.completions = {"inside": "_and_"}
    nvim.keys("<M-Bslash>")
    wait_for_ghost(nvim)
    assert nvim.screen.lines[0] == "inside_and__word"


def test_a_buffer_that_is_deleted_while_it_is_asked_for(nvim, engine, edit):
    engine.completions = {"x = ": "value " * 20}
    engine.forward_s = 0.02
    edit("")
    type_end(nvim, "x = ")
    nvim.wait_for(lambda: engine.num_forwards > 0)
    nvim.command("bwipeout!")
    nvim.keys("<Esc>")
    nvim.wait_for(lambda: engine.num_cancelled == 1)
    assert nvim.messages == []
    edit("")
    engine.forward_s = 0
    type_end(nvim, "x = ")
    nvim.wait_for_screen("x = value")
