"""Code actions: what is offered where, and that they carry commands which do what their titles say."""

import pytest
from helpers.lsp_client import URI, LspError

FULL = '''def price(net: float, tax: float) -> float:
    """The price with tax."""
    return net * (1 + tax)
'''
BARE = "def price(net, tax=0.2):\n    return net * (1 + tax)\n"
CLASS = "class Cart:\n    items = []\n\n    def total(self) -> int:\n        return sum(self.items)\n"
PROMPT = "Unmask: edit with instruction…"
DOC, HINTS, TESTS = "Unmask: add docstring", "Unmask: add type hints", "Unmask: write tests"


def cursor(line, column=0, end=None):
    start = {"line": line, "character": column}
    return {"start": start, "end": start if end is None else {"line": end[0], "character": end[1]}}


async def actions(editor, where, *, uri=URI, diagnostics=(), only=None):
    context = {"diagnostics": list(diagnostics), "triggerKind": 2, **({"only": only} if only else {})}
    params = {"textDocument": {"uri": uri}, "range": where, "context": context}
    return await editor.request("textDocument/codeAction", params) or []


def titles(found):
    return [action["title"] for action in found]


@pytest.mark.parametrize(
    ("language", "text", "line", "expected"),
    [
        ("python", BARE, 1, [PROMPT, DOC, HINTS, TESTS]),
        ("python", FULL, 1, [PROMPT, TESTS]),
        ("python", "x = 1\n\n" + BARE, 0, [PROMPT]),
        ("python", "x = 1\n\n" + BARE, 1, [PROMPT]),
        ("python", CLASS, 0, [PROMPT, DOC, TESTS]),
        ("python", CLASS, 4, [PROMPT, DOC, TESTS]),
        ("python", "def f(*args, key: int) -> None: ...\n", 0, [PROMPT, DOC, HINTS, TESTS]),
        ("python", "class A:\n    def f(self, x: int) -> None:\n        'doc'\n", 1, [PROMPT, TESTS]),
        ("python", "def test_f() -> None:\n    assert 1\n", 1, [PROMPT, DOC]),
        ("typescript", "export const f = (a: number) => a\n", 0, [PROMPT, DOC, HINTS]),
        ("typescript", "/** Doubles. */\nexport function f(a: number): number { return 2 * a }\n", 1, [PROMPT]),
        ("typescript", "class A {\n  // Makes one.\n  constructor(a: number) {}\n}\n", 2, [PROMPT]),
        ("javascript", "function f(a) { return a }\n", 0, [PROMPT, DOC]),
        ("go", "package a\n\nfunc F(a int) int { return a }\n", 2, [PROMPT, DOC]),
        ("go", "package a\n\n// F is.\nfunc F(a int) int { return a }\n", 3, [PROMPT]),
        ("rust", "fn f(a: i32) -> i32 { a }\n", 0, [PROMPT, DOC, TESTS]),
        ("rust", "/// Same.\n#[inline]\nfn f(a: i32) -> i32 { a }\n", 2, [PROMPT, TESTS]),
        ("java", "class A {\n  int f() { return 1; }\n}\n", 1, [PROMPT, DOC]),
        ("cpp", "// One.\nint f() { return 1; }\n", 1, [PROMPT]),
        ("ruby", "def f(x)\n  x\nend\n", 1, [PROMPT]),
        ("plaintext", "hello\n", 0, [PROMPT]),
        ("python", "", 0, [PROMPT]),
    ],
)
async def test_what_is_offered_depends_on_language_and_place(connect, language, text, line, expected):
    async with connect(edit_prompt=True) as editor:
        editor.open(text, language=language)
        assert titles(await actions(editor, cursor(line, 2))) == expected


async def test_actions_carry_a_command_with_the_version_and_no_edit(connect):
    async with connect(edit_prompt=True) as editor:
        editor.open("# head\n\n" + BARE)
        editor.change((0, 0), (0, 0), "\n")
        for action in await actions(editor, cursor(4, 3)):
            assert "edit" not in action and action["kind"] == "refactor.rewrite"
            assert action["command"]["command"] == "unmask.client.edit"
            (argument,) = action["command"]["arguments"]
            assert (argument["uri"], argument["version"]) == (URI, 2)
            assert argument["range"] == cursor(3, 0, end=(5, 0))
            assert ("instruction" in argument) is (action["title"] != PROMPT)


async def test_other_clients_get_preset_instructions_that_the_server_runs_itself(engine, connect):
    async with connect() as editor:
        editor.open(BARE)
        found = {action["title"]: action for action in await actions(editor, cursor(1))}
        assert list(found) == [DOC, HINTS, TESTS]
        command = found[DOC]["command"]
        assert command["command"] == "unmask.edit"
        instruction = command["arguments"][0]["instruction"]
        assert instruction == "Add a docstring to the function `price`. Change nothing else."
        engine.edits = {instruction: FULL}
        assert (await editor.execute(command["command"], *command["arguments"]))["status"] == "applied"
        assert editor.buffers[URI].text == FULL
        # The same action of the text before: its version says that it is out of date.
        assert (await editor.execute(command["command"], *command["arguments"]))["status"] == "stale"
        assert editor.buffers[URI].text == FULL


async def test_a_client_without_literals_gets_commands(connect):
    async with connect(code_action_literals=False) as editor:
        editor.open(BARE)
        for action in await actions(editor, cursor(1)):
            assert set(action) == {"title", "command", "arguments"} and action["command"] == "unmask.edit"


def diagnostic(line, message, severity=1, column=4):
    return {"range": cursor(line, column, end=(line, column + 3)), "message": message, "severity": severity}


async def test_a_diagnostic_is_fixed_in_its_definition(connect):
    name = diagnostic(1, "“ent” is not\n  defined", column=11)
    text = "import os\n" * 3 + "def f(net):\n    return ent\n\n\nprint(f(1)\n"
    name["range"] = cursor(4, 11, end=(4, 14))
    syntax = diagnostic(7, "'(' was never closed", severity=2)
    async with connect(edit_prompt=True) as editor:
        editor.open(text)
        found = await actions(editor, cursor(4, 12), diagnostics=[syntax, name, diagnostic(0, "unused", severity=4)])
        fixes = [action for action in found if action["kind"] == "quickfix"]
        assert titles(fixes) == ["Unmask: fix “ent” is not defined", "Unmask: fix '(' was never closed"]
        assert [action["diagnostics"] for action in fixes] == [[name], [syntax]]
        first, second = (action["command"]["arguments"][0] for action in fixes)
        assert first["range"] == cursor(3, 0, end=(5, 0))
        assert first["instruction"] == "Fix this problem: “ent” is not defined\nIt was found in this line: return ent"
        assert second["range"] == cursor(7, 0, end=(8, 0))
        assert second["instruction"] == "Fix this problem: '(' was never closed"


async def test_long_messages_many_diagnostics_and_long_definitions(connect):
    text = "def f():\n" + "    x = 1\n" * 50
    async with connect({"edit": {"maxSelectionLines": 20}}) as editor:
        editor.open(text)
        many = [diagnostic(line, "word " * 1000) for line in range(1, 11)]
        found = await actions(editor, cursor(1, 4), diagnostics=many)
        assert len(found) == 3 and all(len(title) <= 80 for title in titles(found))
        argument = found[0]["command"]["arguments"][0]
        assert argument["range"] == cursor(1, 0, end=(2, 0))
        assert len(argument["instruction"]) < 1300
        assert (await actions(editor, cursor(1, 4))) == []


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (["quickfix"], 1),
        (["refactor"], 4),
        (["refactor.rewrite"], 4),
        (["refactor.rewrite.more"], 0),
        (["refactor.extract", "quickfix"], 1),
        (["source.organizeImports"], 0),
        (["refactor.rew"], 0),
        ([""], 5),
        ([], 5),
    ],
)
async def test_only_the_kinds_that_are_wanted(connect, only, expected):
    async with connect(edit_prompt=True) as editor:
        editor.open(BARE)
        assert len(await actions(editor, cursor(1, 4), diagnostics=[diagnostic(1, "bad")], only=only)) == expected


async def test_a_selection_decides_what_is_meant(connect):
    async with connect(edit_prompt=True) as editor:
        editor.open(BARE + "\n\n" + BARE)
        inside = await actions(editor, cursor(0, 4, end=(1, 9)))
        assert titles(inside) == [PROMPT, DOC, HINTS, TESTS]
        assert inside[0]["command"]["arguments"][0]["range"] == cursor(0, 0, end=(2, 0))
        assert titles(await actions(editor, cursor(0, 0, end=(2, 0)))) == [PROMPT, DOC, HINTS, TESTS]
        across = await actions(editor, cursor(0, 4, end=(5, 3)))
        assert titles(across) == [PROMPT]


async def test_silence_where_nothing_is_to_be_offered(connect):
    async with connect({"edit": {"codeActions": False}}, edit_prompt=True) as editor:
        editor.open(BARE)
        assert await actions(editor, cursor(1)) == []
    async with connect({"languages": {"disabled": ["lua"]}}, edit_prompt=True) as editor:
        editor.open("x = 1", language="lua")
        assert await actions(editor, cursor(0)) == []
        assert await actions(editor, cursor(0), uri="file:///not/open.py") == []
        with pytest.raises(LspError, match="-32602"):
            await editor.request("textDocument/codeAction", {"textDocument": {"uri": URI}})
