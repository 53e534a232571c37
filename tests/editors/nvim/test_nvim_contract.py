"""What the plugin asks of newer servers, what it tells them, and how it does without."""

import json
import sys
from contextlib import ExitStack

import pytest
from helpers.neovim import ROOT, open_neovim
from helpers.neovim_unmask import (
    edit_state,
    is_visible,
    num_asked,
    open_file,
    setup,
    wait_for_ghost,
    wait_for_hunks,
    wait_for_no_edit,
    wait_until_ready,
)

TEXT = "import os\n\n\ndef f(a):\n    return a\n\n\nx = 1\n"
EDITED = "def f(a: int):\n    return a\n"
SCOPE = {
    "range": {"start": {"line": 3, "character": 0}, "end": {"line": 4, "character": 12}},
    "kind": "definition",
    "name": "f",
}
MODELS = [
    {"name": "small", "licence": "Apache-2.0", "tasks": ["completion"], "isDefault": True, "isPresent": True},
    {"name": "big", "title": "Big one", "licence": "MIT", "tasks": ["completion", "edit"], "isDefault": False,
     "isPresent": True},
    {"name": "far", "licence": "MIT", "tasks": ["edit"], "isDefault": False, "isPresent": False},
]  # fmt: skip


@pytest.fixture(scope="module")
def open_server(served, tmp_path_factory):
    """``open_server(*arguments)``: a Neovim whose server has these arguments, and the server's folder; one of each."""
    opened = {}
    with ExitStack() as stack:

        def open_server(*arguments):
            if arguments not in opened:
                folder = tmp_path_factory.mktemp("contract")
                (folder / "contract.json").write_text("{}")
                command = (sys.executable, "-m", "helpers.contract_server", str(folder), *arguments)
                init = setup(served.url, cmd=command)
                environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
                nvim = stack.enter_context(open_neovim(folder / "home", init, environment=environment))
                opened[arguments] = (nvim, folder)
            return opened[arguments]

        yield open_server


@pytest.fixture
def serve(open_server, engine, tmp_path):
    """``serve(text, old=..., **rules)``: a Neovim inserting into a new file; its server answers by the rules."""

    def serve(text, *, old=False, **rules):
        nvim, serve.folder = open_server(*(["--old"] if old else []))
        (serve.folder / "contract.json").write_text(json.dumps(rules))
        (serve.folder / "sent.jsonl").write_text("")
        nvim.keys("<Esc><Esc>")
        nvim.lua("vim.cmd('silent! %bwipeout!'); _G.notified, _G.requests = {}, {}")
        open_file(nvim, tmp_path / "a.py", text)
        nvim.keys("i")
        wait_until_ready(nvim)
        return nvim

    return serve


@pytest.fixture
def sent(serve):
    """What the server was sent, by name."""

    def sent(name):
        lines = (serve.folder / "sent.jsonl").read_text().splitlines()
        return [argument for found, argument in map(json.loads, lines) if found == name]

    return sent


def test_alternatives_in_turn_and_what_the_server_hears(serve, engine, sent):
    engine.completions = {"x = ": "first + 1"}
    nvim = serve("", alternatives=["second", "first + 1", "third(1)"])
    nvim.type("x = ")
    nvim.wait_for_screen("x = first + 1")
    for key, expected in (("<M-]>", "second"), ("<M-]>", "third(1)"), ("<M-]>", "first + 1"), ("<M-[>", "third(1)")):
        nvim.keys(key)
        nvim.wait_for_screen(f"x = {expected}")
    asked = num_asked(nvim)
    nvim.type("th")
    nvim.keys("<M-Right>")
    assert nvim.buffer == ["x = third"] and num_asked(nvim) == asked
    nvim.wait_for(lambda: sent("$/unmask/didPartiallyAccept"))
    nvim.keys("<C-]>")
    nvim.wait_for(lambda: sent("$/unmask/didDismiss"))
    (partial,), (dismissed,) = sent("$/unmask/didPartiallyAccept"), sent("$/unmask/didDismiss")
    assert partial == {"id": "other-2", "acceptedLength": 5} and dismissed == {"id": "other-2"}
    shown = [notification["id"] for notification in sent("$/unmask/didShow")]
    assert len(shown) == 3 and len(set(shown)) == 3 and shown[1:] == ["other-0", "other-2"]


def test_typing_through_an_alternative_keeps_it(serve, engine):
    engine.completions = {"x = ": "first"}
    nvim = serve("", alternatives=["second", "third"])
    nvim.type("x = ")
    wait_for_ghost(nvim)
    nvim.keys("<M-]>")
    nvim.wait_for_screen("x = second")
    nvim.type("se")
    assert nvim.screen.lines[0] == "x = second"
    nvim.keys("<BS><BS>t")
    nvim.wait_for_screen("x = third")  # another of those that are known fits what is typed instead
    nvim.keys("<Tab>")
    assert nvim.buffer == ["x = third"]


def test_accepted_lengths_count_utf16_units(serve, engine, sent):
    engine.completions = {"x = ": "'👩‍🚀é' + y"}
    nvim = serve("")
    nvim.type("x = ")
    wait_for_ghost(nvim)
    while "+" not in nvim.buffer[0]:
        nvim.keys("<M-Right>")
    nvim.wait_for(lambda: sent("$/unmask/didPartiallyAccept"))
    text = nvim.buffer[0].removeprefix("x = ")
    last = nvim.wait_for(
        lambda: [
            m for m in sent("$/unmask/didPartiallyAccept") if m["acceptedLength"] == len(text.encode("utf-16-le")) // 2
        ]
    )
    assert last and is_visible(nvim)


def test_the_enclosing_definition_is_the_scope_and_its_prompt_is_read_ahead(serve, engine, sent):
    engine.edits = {"add types": EDITED}
    nvim = serve(TEXT, scope=SCOPE)
    nvim.keys("<Esc>5G")
    nvim.command("Unmask edit")
    nvim.wait_for_screen("Unmask: edit f")
    nvim.type("add types")
    nvim.wait_for(lambda: len(sent("unmask.warmEdit")) >= 2)
    first, *_, last = sent("unmask.warmEdit")
    assert first["range"] == SCOPE["range"] and not first.get("instruction") and last["instruction"] == "add types"
    (asked,) = sent("unmask.editScope")
    assert asked["range"]["start"] == asked["range"]["end"] == {"line": 4, "character": 0}
    nvim.keys("<CR>")
    wait_for_hunks(nvim)
    assert engine.asked_edits[-1].selection == "def f(a):\n    return a\n"
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3] == "def f(a: int):"


def test_an_older_server_gets_the_line_of_the_cursor(serve, engine):
    engine.edits = {"add types": "def f(a: int):\n"}
    nvim = serve(TEXT, old=True)
    nvim.keys("<Esc>4G")
    nvim.command("Unmask edit add types")
    wait_for_hunks(nvim)
    assert engine.asked_edits[-1].selection == "def f(a):\n"
    nvim.keys("ghR")


def test_refining_goes_on_from_the_proposed_text(serve, engine, sent):
    engine.edits = {"add types": EDITED, "return too": "def f(a: int) -> int:\n    return a\n"}
    nvim = serve(TEXT)
    nvim.keys("<Esc>")
    nvim.command("4,5Unmask edit add types")
    wait_for_hunks(nvim)
    nvim.keys("ghf")
    nvim.wait_for_screen("Unmask: refine the edit")
    nvim.type("return too")
    nvim.keys("<CR>")
    nvim.wait_for_screen("def f(a: int) -> int:")
    wait_for_hunks(nvim)
    (refined,) = sent("refine")
    assert refined["refine"].startswith("nvim-") and refined["refine"] != refined["editId"]
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3:5] == ["def f(a: int) -> int:", "    return a"]
    nvim.keys("u")
    assert nvim.buffer == TEXT.rstrip("\n").split("\n")


@pytest.mark.parametrize("how", ["given up", "an older server", "nothing came"])
def test_without_a_refinement_the_hunks_stay(serve, engine, how):
    engine.edits = {"add types": EDITED, "more": ""}
    nvim = serve(TEXT, old=how == "an older server")
    nvim.keys("<Esc>")
    nvim.command("4,5Unmask edit add types")
    wait_for_hunks(nvim)
    nvim.keys("ghf")
    nvim.wait_for_screen("Unmask: refine the edit")
    if how == "given up":
        nvim.keys("<Esc>")
    else:
        nvim.type("more")
        nvim.keys("<CR>")
        message = "cannot refine an edit: update it" if how == "an older server" else "gave no text"
        nvim.wait_for(lambda: any(message in shown for shown in nvim.messages))
    nvim.wait_for_screen("gha accept")
    assert edit_state(nvim) == "deciding"
    nvim.keys("ghA")
    wait_for_no_edit(nvim)
    assert nvim.buffer[3] == "def f(a: int):"


@pytest.mark.parametrize("how", ["refined", "nothing came"])
def test_running_a_refined_edit_again_asks_for_all_that_it_stands_for(serve, engine, how):
    """A refinement that brought nothing left the edit that it was to go on from: that is made again."""
    engine.edits = {"add types": EDITED, "more": "", "return too": "def f(a: int) -> int:\n    return a\n"}
    engine.edits["add types\nreturn too"] = "def f(a: int) -> int:\n    return a  # again\n"
    nvim = serve(TEXT)
    nvim.keys("<Esc>")
    nvim.command("4,5Unmask edit add types")
    wait_for_hunks(nvim)
    nvim.keys("ghf")
    nvim.wait_for_screen("Unmask: refine the edit")
    nvim.type("return too" if how == "refined" else "more")
    nvim.keys("<CR>")
    if how == "refined":
        nvim.wait_for_screen("def f(a: int) -> int:")
    else:
        nvim.wait_for(lambda: any("gave no text" in shown for shown in nvim.messages))
    wait_for_hunks(nvim)
    num_asked_edits = len(engine.asked_edits)
    nvim.keys("ghg")
    nvim.wait_for(lambda: len(engine.asked_edits) > num_asked_edits)
    wait_for_hunks(nvim)
    asked = engine.asked_edits[-1]
    assert asked.instruction == ("add types\nreturn too" if how == "refined" else "add types")
    assert asked.selection == "def f(a):\n    return a\n"
    nvim.wait_for_screen("# again" if how == "refined" else "def f(a: int):")
    nvim.keys("ghR")
    wait_for_no_edit(nvim)


def test_code_actions_of_the_server_open_the_prompt_or_run_at_once(serve, engine):
    nvim = serve(TEXT)
    nvim.keys("<Esc>5G")
    if not nvim.lua("return vim.lsp.get_clients()[1].server_capabilities.codeActionProvider ~= nil"):
        pytest.skip("this language server offers no code actions")
    choose = """
    local wanted = ...
    vim.lsp.buf.code_action({ filter = function(action) return action.title == wanted end, apply = true })
    """
    nvim.lua(choose, "Unmask: edit with instruction…")
    nvim.wait_for_screen("⏎ edit")
    nvim.keys("<Esc>")
    nvim.wait_for(lambda: nvim.buffer == TEXT.rstrip("\n").split("\n"))
    nvim.lua(choose, "Unmask: add type hints")
    nvim.wait_for(lambda: engine.asked_edits, "an edit with an instruction of the server's own")
    assert "type" in engine.asked_edits[-1].instruction and "def f(a):" in engine.asked_edits[-1].selection
    nvim.keys("ghR")


def test_models_are_listed_and_switched_to(serve, engine):
    nvim = serve("", models=MODELS)
    nvim.keys("<Esc>")
    nvim.lua(
        """_G.shown = {}
        vim.ui.select = function(items, options, choose)
          table.insert(_G.shown, vim.tbl_map(options.format_item, items))
          choose(items[#_G.shown == 1 and 2 or 1])
        end"""
    )
    nvim.command("Unmask model")
    nvim.wait_for(lambda: any("big is used for completion and edit" in message for message in nvim.messages))
    models, tasks = nvim.lua("return _G.shown")
    assert models == [
        "small  completion  Apache-2.0  default",
        "Big one  (big)  completion, edit  MIT",
        "far  edit  MIT  not downloaded",
    ]
    assert tasks == ["completion and edit", "completion", "edit"]
    engine_settings = nvim.lua("return vim.lsp.get_clients()[1].settings.unmask.engine")
    assert (engine_settings["model"], engine_settings["editModel"]) == ("big", "big") and engine_settings["url"]
    nvim.command("Unmask model far")
    nvim.command("Unmask model smal")
    nvim.wait_for(lambda: any("unmask pull far" in message for message in nvim.messages))
    nvim.wait_for(lambda: any("did you mean small" in message for message in nvim.messages))


def test_models_of_an_older_server(serve):
    nvim = serve("", old=True)
    nvim.keys("<Esc>")
    nvim.command("Unmask model")
    nvim.wait_for(lambda: any("settings.engine.model" in message for message in nvim.messages))
