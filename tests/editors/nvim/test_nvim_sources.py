"""The sources for nvim-cmp and blink.cmp, asked and taken from as those plugins do it (helpers/neovim_stand_ins.py)."""

import pytest
from helpers.neovim_stand_ins import BLINK_CMP, CMP_MENU, COMMON, FORGET_MENUS, NVIM_CMP
from helpers.neovim_unmask import num_asked, text_of, wait_for_ghost


@pytest.fixture(params=[NVIM_CMP, BLINK_CMP], ids=["nvim-cmp", "blink.cmp"])
def plugin(request):
    return request.param


@pytest.fixture
def menu(nvim, plugin):
    """The plugin's menu in Lua's global ``menu``."""
    nvim.lua(plugin + COMMON)
    yield nvim
    nvim.lua("_G.menu = nil")


def entries(nvim):
    """The labels, once the source has answered."""
    nvim.wait_for(lambda: nvim.lua("return menu.items ~= nil"), "the source's answer")
    return nvim.lua("return menu.entries()")


def take(nvim, label):
    nvim.lua("menu.take(...)", label)
    assert nvim.wait_for(lambda: nvim.lua("return menu.is_done"))


def type_into(nvim, text):
    nvim.keys("i")
    nvim.type(text)
    wait_for_ghost(nvim)


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        ("é = count", "er + 1"),
        ("y = n-1", "0 + k"),
        ("y = -", "value"),
        ("café", "_au_lait()"),
        ("'👩‍🚀' + na", "me + '漢字'"),
        ("a.", "b()"),
        ("x = ", "1"),
    ],
)
def test_an_item_passes_the_plugins_filter_and_is_inserted_once(menu, engine, edit, before, answer):
    engine.completions = {before: answer}
    edit("")
    type_into(menu, before)
    menu.lua("menu.ask()")
    (label,) = entries(menu)
    assert label.endswith(answer) and before.endswith(label.removesuffix(answer))
    warmed = len(engine.warmed)
    take(menu, label)
    assert menu.buffer == [before + answer] and menu.cursor == (0, len((before + answer).encode()))
    menu.wait_for(lambda: len(engine.warmed) > warmed, "the server to hear of the acceptance")


def test_several_lines_and_their_preview(menu, engine, edit):
    engine.completions = {"f():\n    r": "es = {\n        1: 2,\n    }\n    return res"}
    edit("", line_end="\r\n")
    type_into(menu, "def f():\nr")
    menu.lua("menu.ask()")
    assert entries(menu) == ["res = { ⋯"]
    preview = menu.lua("return menu.items[1].documentation")
    assert preview == {"kind": "markdown", "value": "```python\nres = {\n    1: 2,\n}\nreturn res\n```"}
    take(menu, "res = { ⋯")
    assert text_of(menu) == "def f():\n    res = {\n        1: 2,\n    }\n    return res"


def test_a_preview_with_a_fence_in_it_is_plain_text(menu, engine, edit):
    engine.completions = {"text = f": '"""\n```\ncode\n```\n"""'}
    edit("")
    type_into(menu, "text = f")
    menu.lua("menu.ask()")
    entries(menu)
    preview = menu.lua("return menu.items[1].documentation")
    assert preview == {"kind": "plaintext", "value": 'text = f"""\n```\ncode\n```\n"""'}


def test_typing_on_before_it_is_taken(menu, engine, edit):
    engine.completions = {"x = c": "ount(a)"}
    edit("")
    type_into(menu, "x = c")
    menu.lua("menu.ask()")
    assert entries(menu) == ["count(a)"]
    menu.type("ou")
    assert entries(menu) == ["count(a)"]
    take(menu, "count(a)")
    assert menu.buffer == ["x = count(a)"] and menu.cursor == (0, 12)
    menu.keys("<Esc>ccx = c")
    menu.lua("menu.ask()")
    menu.type("z")
    assert entries(menu) == []


def test_typing_on_before_the_answer(menu, engine, edit):
    """The server answers for the text as it is then; the item belongs to the text it was asked for."""
    engine.completions = {"x = c": "ount(a)"}
    engine.forward_s = 0.1
    edit("")
    menu.keys("i")
    menu.type("x = c")
    menu.lua("menu.ask()")
    menu.wait_for(lambda: engine.num_forwards > 0, "the engine's work")
    menu.type("ou")
    assert entries(menu) == ["count(a)"]
    take(menu, "count(a)")
    assert menu.buffer == ["x = count(a)"]


def test_an_answer_that_typing_on_superseded_is_asked_for_again(menu, engine, edit):
    engine.completions = {"a.b": "c.d()"}
    edit("")
    menu.keys("i")
    menu.type("a.")
    menu.lua("menu.ask()")
    menu.type("b")
    assert entries(menu) == ["bc.d()"]
    take(menu, "bc.d()")
    assert menu.buffer == ["a.bc.d()"]


def test_the_same_place_is_asked_for_once(menu, engine, edit):
    """Of two requests the newer takes the engine from the older: the ghost text, or the entry, would be missing."""
    engine.completions = {"x = v": "alue"}
    edit("")
    menu.keys("i")
    menu.lua("vim.api.nvim_create_autocmd('TextChangedI', { buffer = 0, callback = function() menu.ask() end })")
    menu.type("x = ")
    asked = num_asked(menu)
    menu.type("v")
    assert entries(menu) == ["value"]
    wait_for_ghost(menu)
    assert num_asked(menu) == asked + 1 and len([r for r in engine.asked if r.prefix.endswith("v")]) == 1


def test_a_cancelled_source_does_not_cancel_ghost_text(nvim, engine, edit):
    engine.completions = {"x = ": "value"}
    engine.forward_s = 0.1
    nvim.lua(BLINK_CMP + COMMON)
    edit("")
    nvim.keys("i")
    nvim.type("x = ")
    nvim.lua("menu.ask()")
    nvim.wait_for(lambda: engine.num_forwards > 0, "the engine's work")
    nvim.lua("menu.cancel()")
    wait_for_ghost(nvim)
    assert engine.num_cancelled == 0 and nvim.lua("return menu.items == nil")


PAIRS = "inoremap <buffer> ( ()<C-g>U<Left>"


@pytest.mark.parametrize(
    ("before", "answer", "typed", "result"),
    [
        ("f(co", "unt, 1) + 2", "", "f(count, 1) + 2"),
        ("pri", "nt(a, b) or 1", "nt(", "print(a, b) or 1"),
        ("pri", "nt(a, (b))", "nt(a, (", "print(a, (b))"),
    ],
)
def test_closers_that_the_editor_adds_leave_nothing_stray(menu, engine, edit, before, answer, typed, result):
    engine.completions = {before: answer}
    edit("")
    menu.command(PAIRS)
    type_into(menu, before)
    menu.lua("menu.ask()")
    (label,) = entries(menu)
    menu.type(typed)
    take(menu, label)
    assert menu.buffer == [result] and menu.cursor == (0, len(result))


def test_closers_of_the_text_stay(menu, engine, edit):
    engine.completions = {"print(va": "lue"}
    edit("")
    menu.command(PAIRS)
    type_into(menu, "print(va")
    menu.lua("menu.ask()")
    assert entries(menu) == ["value"]
    take(menu, "value")
    assert menu.buffer == ["print(value)"] and menu.cursor == (0, 11)


@pytest.mark.parametrize("is_other_called", [False, True])
def test_nvim_cmp_hides_no_other_source_because_of_ours(nvim, engine, edit, is_other_called):
    engine.completions = {"x.": "value"}
    nvim.lua(NVIM_CMP + COMMON + CMP_MENU)
    try:
        nvim.lua(
            "stand_in.registered = { { source = menu.source, is_triggered_by_symbol = true },"
            " { source = {}, is_triggered_by_symbol = ... } }",
            is_other_called,
        )
        edit("")
        type_into(nvim, "x.")
        nvim.lua("menu.ask()")
        assert entries(nvim) == ["value"]
        assert nvim.lua("return stand_in.registered[1].is_triggered_by_symbol") == is_other_called
    finally:
        nvim.lua(FORGET_MENUS)


def test_a_source_is_off_where_the_server_is_not(nvim, engine, edit):
    nvim.command("enew | setlocal buftype=nofile")
    assert not nvim.lua("return require('unmask.blink').new():enabled()")
    nvim.lua("_G.answer = nil; require('unmask.cmp').new():complete({}, function(r) _G.answer = r end)")
    assert nvim.lua("return _G.answer") == {"items": [], "isIncomplete": True}
