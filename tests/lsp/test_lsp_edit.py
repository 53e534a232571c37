"""Instruction edits through a real language-server process: preview, checks, and one versioned change."""

import asyncio
import hashlib
import itertools
import time

import pytest
from helpers.lsp_client import URI, LspError, wait_until

from diffusion_core.errors import Overloaded
from diffusion_core.requests import FinishReason

TEXT = "import os\n\n\ndef f(a):\n    x = a\n    return x\n\n\nprint(f(1))\n"
EDITED = "def f(a: int) -> int:\n    x = a\n    return x\n"
SELECTION = {"start": {"line": 3, "character": 0}, "end": {"line": 6, "character": 0}}


def command(**fields):
    return {"uri": URI, "version": 1, "range": SELECTION, "instruction": "add types", **fields}


async def test_preview_then_one_versioned_edit_of_the_changed_lines_only(engine, connect):
    engine.edits = {"add types": EDITED}
    engine.forward_s = 0.02
    async with connect() as editor:
        editor.open(TEXT)
        answer = await editor.execute("unmask.edit", command(editId="e1"))
        assert (answer["status"], answer["editId"], answer["model"]) == ("applied", "e1", "scripted")
        assert editor.buffers[URI].text == TEXT.replace("def f(a):", "def f(a: int) -> int:")
        (request,) = engine.asked_edits
        assert (request.selection, request.language) == ("def f(a):\n    x = a\n    return x\n", "python")
        assert (request.before, request.after) == ("import os\n\n\n", "\n\nprint(f(1))\n")

        (applied,) = editor.of_method("workspace/applyEdit")
        (change,) = applied["edit"]["documentChanges"]
        assert change["textDocument"] == {"uri": URI, "version": 1}
        assert [edit["newText"] for edit in change["edits"]] == ["def f(a: int) -> int:\n"]

        frames = editor.of_method("$/unmask/editPreview")
        assert all((frame["editId"], frame["uri"], frame["version"]) == ("e1", URI, 1) for frame in frames)
        assert [frame["done"] for frame in frames] == [False] * (len(frames) - 1) + [True]
        assert len(frames) >= 3 and frames[-1]["settled"] == EDITED
        for earlier, later in itertools.pairwise(frames):
            assert later["settled"].startswith(earlier["settled"])
        statuses = [(status["kind"], status["reason"]) for status in editor.of_method("$/unmask/status")]
        assert ("Busy", "editing") in statuses and statuses[-1] == ("Normal", "ready")


async def test_stale_before_the_work_begins(engine, connect):
    async with connect() as editor:
        editor.open(TEXT)
        assert (await editor.execute("unmask.edit", command(version=7)))["status"] == "stale"
        wrong = hashlib.sha256(b"something else").hexdigest()
        assert (await editor.execute("unmask.edit", command(originalSha256=wrong)))["status"] == "stale"
        assert engine.asked_edits == []
        right = hashlib.sha256(b"def f(a):\n    x = a\n    return x\n").hexdigest()
        engine.edits = {"add types": EDITED}
        assert (await editor.execute("unmask.edit", command(originalSha256=right)))["status"] == "applied"


async def begin_edit(engine, editor, **fields):
    """An edit whose work has begun."""
    engine.edits.setdefault("add types", EDITED)
    engine.forward_s = 0.03
    num_forwards = engine.num_forwards
    request = {"command": "unmask.edit", "arguments": [command(**fields)]}
    request_id, answer = editor.begin("workspace/executeCommand", request)
    await wait_until(lambda: engine.num_forwards > num_forwards)
    return request_id, answer


async def test_changes_inside_the_selection_make_it_stale_and_changes_elsewhere_move_it(engine, connect):
    async with connect() as editor:
        editor.open(TEXT)
        _, answer = await begin_edit(engine, editor)
        editor.change((4, 8), (4, 8), "1 + ")
        assert (await asyncio.wait_for(answer, 5))["status"] == "stale"
        assert editor.of_method("workspace/applyEdit") == []

        editor.change((4, 8), (4, 12), "")
        _, answer = await begin_edit(engine, editor, version=3)
        editor.change((0, 0), (0, 0), "import sys\n")
        assert (await asyncio.wait_for(answer, 5))["status"] == "applied"
        assert editor.buffers[URI].text == "import sys\n" + TEXT.replace("def f(a):", "def f(a: int) -> int:")


async def test_a_change_that_crosses_with_the_edit_is_refused_by_version(engine, connect):
    engine.edits = {"add types": EDITED}
    async with connect() as editor:
        editor.open(TEXT)

        def type_something():
            editor.before_apply = lambda: None
            editor.change((4, 8), (4, 8), "1 + ")

        editor.before_apply = type_something
        answer = await editor.execute("unmask.edit", command())
        assert answer["status"] == "rejected" and "version" in answer["message"]
        assert "def f(a):" in editor.buffers[URI].text
        editor.accepts_edits = False
        answer = await editor.execute("unmask.edit", command(version=2))
        assert answer["status"] == "rejected" and "the user said no" in answer["message"]


async def test_cancelling_the_request_frees_the_engine_and_clears_the_preview(engine, connect):
    async with connect() as editor:
        editor.open(TEXT)
        request_id, answer = await begin_edit(engine, editor)
        editor.cancel(request_id)
        with pytest.raises(LspError, match="-32800"):
            await asyncio.wait_for(answer, 2)
        last = await editor.wait_for("$/unmask/editPreview", lambda frame: frame["done"])
        assert last["settled"] == last["unsettled"] == ""
        await asyncio.sleep(0.15)
        num_forwards = engine.num_forwards
        await asyncio.sleep(0.15)
        assert engine.num_forwards == num_forwards
        assert editor.buffers[URI].text == TEXT
        engine.forward_s = 0
        assert (await editor.execute("unmask.edit", command()))["status"] == "applied"


@pytest.mark.parametrize("own_token", [True, False])
async def test_cancelling_the_progress(engine, connect, own_token):
    engine.edits = {"add types": EDITED}
    engine.forward_s = 0.05
    async with connect(progress=True) as editor:
        editor.open(TEXT)
        request = {"command": "unmask.edit", "arguments": [command()]}
        if own_token:
            request["workDoneToken"] = "mine"
        _, answer = editor.begin("workspace/executeCommand", request)
        begun = await editor.wait_for("$/progress", lambda progress: progress["value"]["kind"] == "begin")
        assert begun["value"]["cancellable"]
        assert (begun["token"] == "mine") is own_token
        editor.notify("window/workDoneProgress/cancel", {"token": begun["token"]})
        assert (await asyncio.wait_for(answer, 5))["status"] == "cancelled"
        await editor.wait_for("$/progress", lambda progress: progress["value"]["kind"] == "end")
        assert editor.buffers[URI].text == TEXT


async def test_without_apply_the_client_decides_hunk_by_hunk(engine, connect):
    text = "a\nb\nc\nd\ne\n"
    engine.edits = {"do": "A\nb\nC\nd\nE\n"}
    whole = {"start": {"line": 0, "character": 0}, "end": {"line": 5, "character": 0}}
    async with connect() as editor:
        editor.open(text)
        ready = await editor.execute("unmask.edit", command(range=whole, instruction="do", apply=False, editId="e"))
        assert (ready["status"], ready["version"]) == ("ready", 1)
        assert [edit["newText"] for edit in ready["edits"]] == ["A\n", "C\n", "E\n"]
        assert editor.buffers[URI].text == text
        with pytest.raises(LspError, match=r"hunks \[3\] do not exist"):
            await editor.execute("unmask.acceptEdit", {"editId": "e", "hunks": [3]})
        answer = await editor.execute("unmask.acceptEdit", {"editId": "e", "hunks": [2, 0]})
        assert answer["status"] == "applied"
        assert editor.buffers[URI].text == "A\nb\nc\nd\nE\n"
        with pytest.raises(LspError, match="no edit e waits"):
            await editor.execute("unmask.acceptEdit", {"editId": "e"})
        await editor.execute("unmask.edit", command(range=whole, instruction="do", apply=False, version=2, editId="f"))
        assert await editor.execute("unmask.rejectEdit", {"editId": "f"}) is True
        assert await editor.execute("unmask.rejectEdit", {"editId": "f"}) is False


async def test_nothing_is_applied_when_the_answer_is_empty_unchanged_or_cut_short(engine, connect):
    async with connect() as editor:
        editor.open(TEXT)
        engine.edits = {"add types": "def f(a):\n    x = a\n    return x\n"}
        answer = await editor.execute("unmask.edit", command())
        assert (answer["status"], answer["message"]) == ("empty", "The model left the selection as it is.")
        engine.edits = {"add types": "\n"}
        assert (await editor.execute("unmask.edit", command()))["status"] == "empty"
        engine.edits, engine.edit_finish = {"add types": EDITED}, FinishReason.LENGTH
        answer = await editor.execute("unmask.edit", command())
        assert answer["status"] == "incomplete" and "length" in answer["message"]
        assert editor.buffers[URI].text == TEXT


async def test_wrong_use_is_explained(engine, connect):
    short = {"start": {"line": 3, "character": 0}, "end": {"line": 4, "character": 0}}
    async with connect({"edit": {"maxSelectionLines": 2}}) as editor:
        editor.open(TEXT)
        for fields, message in (
            ({}, "the selection has 3 lines: unmask.edit.maxSelectionLines allows 2"),
            ({"instruction": " ", "range": short}, "instruction is empty"),
            ({"uri": "file:///other"}, "not open"),
            ({"range": {}}, "range must be"),
            ({"instruction": 5}, "instruction must be str"),
            ({"applly": True}, "applly is not a field of an edit"),
        ):
            with pytest.raises(LspError, match=message):
                await editor.execute("unmask.edit", command(**fields))
        with pytest.raises(LspError, match="takes one object"):
            await editor.execute("unmask.edit")
        with pytest.raises(LspError, match="range is missing"):
            await editor.execute("unmask.edit", {"uri": URI, "instruction": "x"})
        engine.error = Overloaded("64 requests wait")
        with pytest.raises(LspError, match="64 requests wait"):
            await editor.execute("unmask.edit", command(range=short))


async def test_one_edit_of_a_document_at_a_time(engine, connect):
    async with connect() as editor:
        editor.open(TEXT)
        _, answer = await begin_edit(engine, editor)
        with pytest.raises(LspError, match="being made already"):
            await editor.execute("unmask.edit", command())
        assert (await asyncio.wait_for(answer, 5))["status"] == "applied"


async def test_crlf_and_indentation_are_kept(engine, connect):
    text = "class A:\r\n    def f(self):\r\n        return 1\r\n"
    span = {"start": {"line": 1, "character": 0}, "end": {"line": 2, "character": 16}}
    engine.edits = {"two": "def f(self):\n    return 2\n"}  # as models answer: from column 0
    async with connect() as editor:
        editor.open(text)
        assert (await editor.execute("unmask.edit", command(range=span, instruction="two")))["status"] == "applied"
        assert editor.buffers[URI].text == "class A:\r\n    def f(self):\r\n        return 2\r\n"


async def test_an_edit_waits_for_an_engine_that_loads(engine, connect):
    engine.edits = {"add types": EDITED}
    async with connect() as editor:
        editor.open(TEXT)
        engine.status = "loading"
        await editor.execute("unmask.restartEngine")
        await editor.wait_for_status("loading")
        request = {"command": "unmask.edit", "arguments": [command()]}
        _, answer = editor.begin("workspace/executeCommand", request)
        await asyncio.sleep(0.3)
        assert not answer.done()
        begin = time.perf_counter()
        engine.status = "ready"
        assert (await asyncio.wait_for(answer, 20))["status"] == "applied"
        assert time.perf_counter() - begin < 10
