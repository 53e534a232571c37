"""Decisions about an edit that waits: hunks, changes of the document meanwhile, and refining it further."""

import asyncio
import hashlib
import itertools

import pytest
from helpers.lsp_client import URI, LspError, ReferenceBuffer, wait_until

from diffusion_core.requests import FinishReason

TEXT = "a\nb\nc\nd\ne\n"
NEW = "A\nb\nC\nd\nE\n"
WHOLE = {"start": {"line": 0, "character": 0}, "end": {"line": 5, "character": 0}}


def command(**fields):
    return {"uri": URI, "range": WHOLE, "instruction": "do", "apply": False, "editId": "e", **fields}


async def make_ready(engine, editor, text=TEXT, new=NEW, **fields):
    engine.edits.setdefault("do", new)
    if URI not in editor.buffers:
        editor.open(text)
    answer = await editor.execute("unmask.edit", command(**fields))
    assert answer["status"] == "ready", answer
    return answer


@pytest.mark.parametrize("hunks", [None, [], [0], [1], [2], [2, 0], [1, 1, 0], [0, 1, 2]])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_each_choice_of_hunks_in_any_order(engine, connect, hunks, line_end):
    """What is applied is what a client would get that applies those edits of the ``ready`` answer itself."""
    async with connect() as editor:
        ready = await make_ready(engine, editor, TEXT.replace("\n", line_end))
        expected = ReferenceBuffer(editor.buffers[URI].text, editor.encoding)
        chosen = range(3) if hunks is None else sorted(set(hunks))
        expected.apply([ready["edits"][number] for number in chosen])
        choice = {} if hunks is None else {"hunks": hunks}
        answer = await editor.execute("unmask.acceptEdit", {"editId": "e", **choice})
        assert editor.buffers[URI].text == expected.text
        assert answer["status"] == ("applied" if chosen else "empty")
        assert len(editor.of_method("workspace/applyEdit")) == (1 if chosen else 0)
        lines = [new if number in chosen else old for number, (old, new) in enumerate(zip("ace", "ACE", strict=True))]
        assert editor.buffers[URI].text == line_end.join([lines[0], "b", lines[1], "d", lines[2], ""])


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
async def test_hunks_move_with_lines_that_are_added_and_removed_above(engine, connect, line_end):
    text = f"import os\nimport sys\n{TEXT}tail\n".replace("\n", line_end)
    wanted = {"start": {"line": 2, "character": 0}, "end": {"line": 7, "character": 0}}
    async with connect() as editor:
        await make_ready(engine, editor, text, range=wanted)
        editor.change((0, 0), (0, 0), f"# one{line_end}# two{line_end}# three{line_end}")
        editor.change((4, 0), (5, 0), "")  # import sys goes
        editor.change((9, 4), (9, 4), f" of the file{line_end}more")
        answer = await editor.execute("unmask.acceptEdit", {"editId": "e", "hunks": [0, 2]})
        assert answer["status"] == "applied" and answer["version"] == 4
        expected = ["# one", "# two", "# three", "import os", "A", "b", "c", "d", "E", "tail of the file", "more", ""]
        assert editor.buffers[URI].text == line_end.join(expected)
        (applied,) = editor.of_method("workspace/applyEdit")
        assert applied["edit"]["documentChanges"][0]["textDocument"]["version"] == 4


CHANGES = {
    "a changed line": ((1, 0), (1, 1), "x"),
    "a line more": ((2, 0), (2, 0), "x\n"),
    "a line less": ((3, 0), (4, 0), ""),
    "another line end": ((1, 1), (2, 0), "\r\n"),
    "the whole text gone": ((0, 0), (99, 0), ""),
    "a character at the first line's start": ((0, 0), (0, 0), " "),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_inside_makes_it_stale_and_nothing_is_sent(engine, connect, change):
    async with connect() as editor:
        await make_ready(engine, editor)
        editor.change(*CHANGES[change])
        text = editor.buffers[URI].text
        answer = await editor.execute("unmask.acceptEdit", {"editId": "e"})
        assert answer["status"] == "stale" and answer["edits"] == []
        assert editor.buffers[URI].text == text
        assert editor.of_method("workspace/applyEdit") == []


async def test_a_selection_whose_like_stands_elsewhere_is_stale_rather_than_mistaken(engine, connect):
    """Changes above and below, and the very lines twice: which of them was meant cannot be known."""
    block = "x = 1\ny = 2\n"
    async with connect() as editor:
        wanted = {"start": {"line": 1, "character": 0}, "end": {"line": 3, "character": 0}}
        await make_ready(engine, editor, f"# a\n{block}# b\n", "x = 3\ny = 2\n", range=wanted)
        editor.change((0, 0), (0, 3), f"{block}# c\n# d")
        editor.change((6, 0), (6, 3), "# e")
        assert (await editor.execute("unmask.acceptEdit", {"editId": "e"}))["status"] == "stale"


async def test_a_change_that_was_taken_back_is_no_obstacle(engine, connect):
    async with connect() as editor:
        await make_ready(engine, editor)
        editor.change((1, 0), (1, 1), "x")
        editor.change((1, 0), (1, 1), "b")
        assert (await editor.execute("unmask.acceptEdit", {"editId": "e"}))["status"] == "applied"
        assert editor.buffers[URI].text == NEW


async def test_a_closed_document_is_stale_and_one_opened_again_with_the_same_text_is_not(engine, connect):
    async with connect() as editor:
        await make_ready(engine, editor)
        await make_ready(engine, editor, editId="f")
        editor.notify("textDocument/didClose", {"textDocument": {"uri": URI}})
        assert (await editor.execute("unmask.acceptEdit", {"editId": "f"}))["status"] == "stale"
        editor.open("# top\n" + TEXT)
        assert (await editor.execute("unmask.acceptEdit", {"editId": "e"}))["status"] == "applied"
        assert editor.buffers[URI].text == "# top\n" + NEW


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
async def test_the_hash_is_of_the_very_range(engine, connect, encoding):
    """Characters outside the basic plane, CRLF, and a range that begins and ends inside of lines."""
    text = "x = '😀'\r\ny = 'é'\r\n"
    engine.edits = {"do": "x = 1\ny = 2\n"}
    begin = {"utf-8": 9, "utf-16": 7, "utf-32": 6}[encoding]
    wanted = {"start": {"line": 0, "character": begin}, "end": {"line": 1, "character": 3}}
    async with connect(encoding=encoding) as editor:
        editor.open(text)
        for original, status in ((b"'\r\ny =", "ready"), (b"'\ny =", "stale"), (b"", "stale")):
            digest = hashlib.sha256(original).hexdigest()
            for shown in (digest, digest.upper()):
                answer = await editor.execute("unmask.edit", command(range=wanted, originalSha256=shown))
                assert answer["status"] == status, original


async def test_a_refused_edit_is_over_and_a_rejected_hunk_list_is_not(engine, connect):
    async with connect() as editor:
        await make_ready(engine, editor)
        for wrong in ([3], [-1], ["0"], [True], "0", 0):
            with pytest.raises(LspError, match="hunks"):
                await editor.execute("unmask.acceptEdit", {"editId": "e", "hunks": wrong})
        editor.accepts_edits = False
        answer = await editor.execute("unmask.acceptEdit", {"editId": "e"})
        assert answer["status"] == "rejected" and "the user said no" in answer["message"]


async def test_oversized_ranges_are_refused_by_name_and_limit(engine, connect):
    settings = {"edit": {"maxSelectionLines": 3, "maxSelectionChars": 10}}
    long = {"start": {"line": 5, "character": 0}, "end": {"line": 6, "character": 0}}
    async with connect(settings) as editor:
        editor.open(TEXT + "0123456789\n")
        with pytest.raises(LspError, match=r"5 lines: unmask\.edit\.maxSelectionLines allows 3"):
            await editor.execute("unmask.edit", command())
        with pytest.raises(LspError, match=r"11 characters: unmask\.edit\.maxSelectionChars allows 10"):
            await editor.execute("unmask.edit", command(range=long))
        assert engine.asked_edits == []


# Refine


async def test_refining_starts_from_the_proposed_text_and_ends_with_hunks_of_the_document(engine, connect):
    engine.edits = {"more": "A\nb\nC\nd\ne\nf\n"}
    async with connect() as editor:
        await make_ready(engine, editor)
        seen = len(editor.of_method("$/unmask/editPreview"))
        answer = await editor.execute("unmask.edit", command(instruction="more", editId="f", refine="e"))
        assert (answer["status"], answer["editId"], answer["version"]) == ("ready", "f", 1)
        assert engine.asked_edits[-1].selection == NEW
        assert [edit["newText"] for edit in answer["edits"]] == ["A\n", "C\n", "f\n"]
        frames = editor.of_method("$/unmask/editPreview")[seen:]
        assert {frame["editId"] for frame in frames} == {"f"} and frames[-1]["settled"] == "A\nb\nC\nd\ne\nf\n"
        with pytest.raises(LspError, match="no edit e waits"):
            await editor.execute("unmask.acceptEdit", {"editId": "e"})
        assert (await editor.execute("unmask.acceptEdit", {"editId": "f", "hunks": [0, 2]}))["status"] == "applied"
        assert editor.buffers[URI].text == "A\nb\nc\nd\ne\nf\n"


async def test_refining_needs_no_range_moves_along_and_can_be_repeated(engine, connect):
    texts = {"first": "A\nb\nc\nd\ne\n", "second": "A\nB\nc\nd\ne\n", "third": "A\nB\nC\nd\ne\n"}
    engine.edits = {"do": "1\nb\nc\nd\ne\n", **texts}
    async with connect() as editor:
        await make_ready(engine, editor)
        for earlier, later in itertools.pairwise(["e", *texts]):
            editor.change((0, 0), (0, 0), "# top\n")
            fields = {"uri": URI, "instruction": later, "editId": later, "refine": earlier, "apply": False}
            answer = await editor.execute("unmask.edit", fields)
            assert answer["status"] == "ready" and answer["version"] == editor.versions[URI]
        assert engine.asked_edits[-1].before == "# top\n" * 3
        assert (await editor.execute("unmask.acceptEdit", {"editId": "third"}))["status"] == "applied"
        assert editor.buffers[URI].text == "# top\n" * 3 + texts["third"]


async def test_a_refinement_that_fails_leaves_the_edit_waiting(engine, connect):
    async with connect() as editor:
        await make_ready(engine, editor)
        refine = {"refine": "e", "editId": "f", "instruction": "more"}
        stop, length = FinishReason.STOP, FinishReason.LENGTH
        for text, reason, status in (
            (NEW, stop, "empty"),
            ("\n", stop, "empty"),
            (TEXT, stop, "empty"),
            ("A\n", length, "incomplete"),
        ):
            engine.edits["more"], engine.edit_finish = text, reason
            assert (await editor.execute("unmask.edit", command(**refine)))["status"] == status
        engine.edits["more"], engine.forward_s, seen = "x\n" * 50, 0.05, engine.num_forwards
        params = {"command": "unmask.edit", "arguments": [command(**refine)]}
        request_id, waiting = editor.begin("workspace/executeCommand", params)
        await wait_until(lambda: engine.num_forwards > seen)
        editor.cancel(request_id)
        with pytest.raises(LspError, match="-32800"):
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(LspError, match="no edit f waits"):
            await editor.execute("unmask.acceptEdit", {"editId": "f"})
        assert (await editor.execute("unmask.acceptEdit", {"editId": "e"}))["status"] == "applied"
        assert editor.buffers[URI].text == NEW


async def test_refining_what_is_not_there_or_was_changed(engine, connect):
    engine.edits = {"more": "x\n"}
    async with connect() as editor:
        await make_ready(engine, editor)
        more = {"instruction": "more", "editId": "f"}
        with pytest.raises(LspError, match="no edit nothing waits"):
            await editor.execute("unmask.edit", command(refine="nothing", **more))
        editor.open("other\n", uri="file:///other.py")
        with pytest.raises(LspError, match=r"edit e is one of file:///project/main\.py"):
            await editor.execute("unmask.edit", command(refine="e", **more) | {"uri": "file:///other.py"})
        with pytest.raises(LspError, match="range is missing"):
            await editor.execute("unmask.edit", {"uri": URI, "instruction": "more"})
        editor.change((2, 0), (2, 1), "changed")
        answer = await editor.execute("unmask.edit", command(refine="e", **more))
        assert answer["status"] == "stale"
        assert len(engine.asked_edits) == 1


async def test_a_refinement_of_an_insertion_keeps_its_place_and_indentation(engine, connect):
    text = "class A:\n    x = 1\n\n    y = 2\n"
    engine.edits = {"do": "def f(self):\n    pass\n", "more": "def f(self):\n    return 1\n"}
    blank = {"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 0}}
    async with connect() as editor:
        await make_ready(engine, editor, text, range=blank)
        answer = await editor.execute("unmask.edit", {"uri": URI, "instruction": "more", "refine": "e"})
        assert engine.asked_edits[-1].selection == "    def f(self):\n        pass\n"
        assert answer["status"] == "applied"
        assert editor.buffers[URI].text == "class A:\n    x = 1\n    def f(self):\n        return 1\n    y = 2\n"
