"""Before an edit: what it is about, and the engine reading ahead while the user types the instruction."""

import hashlib
import json

import pytest
from helpers.lsp_client import URI, LspError, wait_until

from diffusion_core.requests import UNKNOWN_INSTRUCTION

TEXT = """import os

class Cart:
    def total(self, tax):
        net = sum(self.prices)

        return net * tax


print(Cart().total(1))
"""


def span(start, end=None):
    places = (start, end or start)
    return dict(zip(("start", "end"), ({"line": line, "character": column} for line, column in places), strict=True))


@pytest.mark.parametrize(
    ("wanted", "kind", "name", "expected"),
    [
        (span((4, 3), (6, 2)), "selection", "", span((4, 0), (7, 0))),
        (span((4, 3), (6, 0)), "selection", "", span((4, 0), (6, 0))),
        (span((6, 2), (4, 3)), "selection", "", span((4, 0), (7, 0))),
        (span((6, 10)), "definition", "total", span((3, 0), (7, 0))),
        (span((2, 7)), "definition", "Cart", span((2, 0), (7, 0))),
        (span((0, 3)), "line", "", span((0, 0), (1, 0))),
        (span((5, 0)), "insert", "", span((5, 0))),
        (span((99, 0)), "insert", "", span((10, 0))),
    ],
)
async def test_scopes(connect, wanted, kind, name, expected):
    async with connect() as editor:
        editor.open(TEXT)
        answer = await editor.execute("unmask.editScope", {"uri": URI, "range": wanted})
        assert answer == {"range": expected, "kind": kind, "name": name}


async def test_scopes_of_other_languages_and_in_other_units(connect):
    async with connect(encoding="utf-16") as editor:
        editor.open("const a = '😀'; function f(x) {\r\n  return x\r\n}", language="javascript")
        answer = await editor.execute("unmask.editScope", {"uri": URI, "range": span((1, 4))})
        assert (answer["kind"], answer["name"]) == ("definition", "f")
        assert answer["range"] == span((0, 0), (2, 1))
        editor.open("def f(x)\n  x\nend\n", uri="file:///a.rb", language="ruby")
        answer = await editor.execute("unmask.editScope", {"uri": "file:///a.rb", "range": span((1, 2))})
        assert (answer["kind"], answer["range"]["start"]["line"]) == ("definition", 0)


async def test_wrong_use_of_scope_and_warm_up_is_explained(connect):
    async with connect() as editor:
        for command in ("unmask.editScope", "unmask.warmEdit"):
            with pytest.raises(LspError, match="range is missing"):
                await editor.execute(command, {"uri": URI})
            with pytest.raises(LspError, match="rnge is not a field"):
                await editor.execute(command, {"uri": URI, "range": span((0, 0)), "rnge": 1})
            with pytest.raises(LspError, match="range must be"):
                await editor.execute(command, {"uri": URI, "range": {"start": {"line": 0, "character": True}}})
        with pytest.raises(LspError, match="not open"):
            await editor.execute("unmask.editScope", {"uri": URI, "range": span((0, 0))})


async def test_a_warm_up_shows_the_engine_what_the_edit_will(engine, connect):
    """Same selection and surroundings, so the engine has them read when the instruction comes."""
    engine.edits = {"add types": "x\n"}
    selection = span((3, 0), (7, 0))
    async with connect() as editor:
        editor.open(TEXT)
        for instruction in (None, "", "add t"):
            wanted = {"uri": URI, "range": selection, **({} if instruction is None else {"instruction": instruction})}
            assert await editor.execute("unmask.warmEdit", wanted) is None
        await wait_until(lambda: len(engine.warmed) == 3)
        assert [warm.edit.instruction for warm in engine.warmed] == [UNKNOWN_INSTRUCTION, UNKNOWN_INSTRUCTION, "add t"]
        await editor.execute("unmask.edit", {"uri": URI, "range": selection, "instruction": "add types"})
        (asked,) = engine.asked_edits
        for warm in engine.warmed:
            for name in ("selection", "before", "after", "language", "path"):
                assert getattr(warm.edit, name) == getattr(asked, name)


async def test_a_warm_up_never_fails_or_waits(engine, connect):
    async with connect({"edit": {"maxSelectionLines": 2}}) as editor:
        editor.open(TEXT)
        engine.status = "loading"
        await editor.execute("unmask.restartEngine")
        await editor.wait_for_status("loading")
        assert await editor.execute("unmask.warmEdit", {"uri": URI, "range": span((0, 0))}) is None
        seen, engine.status = len(editor.received), "ready"
        await editor.wait_for_status("ready", since=seen)
        for wanted in (span((0, 0), (7, 0)), span((0, 0))):
            for uri in (URI, "file:///not/open"):
                assert await editor.execute("unmask.warmEdit", {"uri": uri, "range": wanted}) is None
        await wait_until(lambda: engine.warmed)
        assert [warm.edit.selection for warm in engine.warmed] == ["import os\n"]


async def test_a_newer_warm_up_and_the_edit_itself_end_an_older_one(engine, connect):
    engine.edits = {"add types": "import os, sys\n"}
    engine.warm_s = 30
    async with connect() as editor:
        editor.open(TEXT)
        for line in (0, 9):
            await editor.execute("unmask.warmEdit", {"uri": URI, "range": span((line, 0))})
            await wait_until(lambda line=line: len(engine.warmed) == (1 if line == 0 else 2))
        await wait_until(lambda: engine.num_cancelled == 1)
        await editor.execute("unmask.edit", {"uri": URI, "range": span((0, 0)), "instruction": "add types"})
        await wait_until(lambda: engine.num_cancelled == 2)


INSERTIONS = {
    "a line with white space": (
        "class A:\n    \nx = 1\n", 1, "def f(self):\n    pass\n",
        "class A:\n    def f(self):\n        pass\nx = 1\n",
    ),
    "between two methods": (
        "class A:\n    def f(self):\n        pass\n\n    def h(self):\n        pass\n", 3, "def g(self):\n    pass\n",
        "class A:\n    def f(self):\n        pass\n    def g(self):\n        pass\n    def h(self):\n        pass\n",
    ),
    "between two functions": (
        "def f():\n    pass\n\ndef h():\n    pass\n", 2, "def g(): ...\n",
        "def f():\n    pass\ndef g(): ...\ndef h():\n    pass\n",
    ),
    "at the end": ("x = 1\n", 1, "y = 2", "x = 1\ny = 2"),
    "in an empty document": ("", 0, "y = 2\nz = 3\n", "y = 2\nz = 3"),
    "CRLF": ("x = 1\r\n\r\nz = 3\r\n", 1, "y = 2\nw = 4\n", "x = 1\r\ny = 2\r\nw = 4\r\nz = 3\r\n"),
    "text that is indented already": (
        "if x:\n    a()\n\n    b()\n", 2, "    c()\n    d()\n",
        "if x:\n    a()\n    c()\n    d()\n    b()\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INSERTIONS)
async def test_an_edit_on_a_blank_line_inserts(engine, connect, case):
    text, line, answer, expected = INSERTIONS[case]
    engine.edits = {"insert": answer}
    async with connect() as editor:
        editor.open(text)
        scope = await editor.execute("unmask.editScope", {"uri": URI, "range": span((line, 0))})
        assert scope["kind"] == "insert" and scope["range"]["start"] == scope["range"]["end"]
        command = {"uri": URI, "version": 1, "range": scope["range"], "instruction": "insert"}
        command["originalSha256"] = hashlib.sha256(b"").hexdigest()
        assert (await editor.execute("unmask.edit", command))["status"] == "applied"
        assert editor.buffers[URI].text == expected
        frames = editor.of_method("$/unmask/editPreview")
        assert frames[-1]["settled"].replace("\n", "") in expected.replace("\r\n", "").replace("\n", "")


async def test_list_models(connect, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints" / "my-own"
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(b"12345")
    receipt = {"name": "my-own", "source": "path", "origin": "x", "file": "model.gguf", "size_bytes": 5, "sha256": "0"}
    (folder / "receipt.json").write_text(json.dumps(receipt))
    monkeypatch.setenv("UNMASK_CACHE_DIR", str(tmp_path))
    async with connect() as editor:
        models = {model["name"]: model for model in await editor.execute("unmask.listModels", {})}
    small, large = models["qwen2.5-coder-0.5b"], models["qwen2.5-coder-1.5b"]
    assert (small["isDefault"], small["isPresent"], small["tasks"]) == (True, False, ["complete"])
    assert (large["isDefault"], large["tasks"]) == (True, ["edit"])
    assert all(model["licence"] and model["title"] and model["parameters"] for model in (small, large))
    assert models["my-own"] == {
        "name": "my-own", "licence": "", "tasks": ["complete", "edit"], "isDefault": False, "isPresent": True,
    }  # fmt: skip
