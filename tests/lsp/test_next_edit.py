"""The next edit: what a change is, where it belongs as well, how sure that is, and the command."""

import asyncio

import pytest
from bench.calibrate_next_edit import replay, tally
from helpers.lsp_client import URI, LspError, wait_until

from lsp_server.next_edit.candidates import find_candidates
from lsp_server.next_edit.confidence import MIN_SEEN, Tally, confidence, load_tallies
from lsp_server.next_edit.line_change import Rename, Replacement, change_between


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (["x = total + 1"], ["x = amount + 1"], Rename("total", "amount", False)),
        (["def f(n):", "    return n"], ["def f(m):", "    return m"], Rename("n", "m", True)),
        (["total = total * 2"], ["amount = amount * 2"], Rename("total", "amount", True)),
        (["const a = 1"], ["const b = 1"], Rename("a", "b", True)),
        (["log(a)"], ["log(a, level)"], Replacement(("(", "a"), (), (",", " ", "level"), (")",), 0)),
        (["  if not x:"], ["  if x:"], Replacement(("if",), ("not", " "), (), ("x", ":"), 2)),
        (["a = 1"], ["a = 1", "b = 2"], None),
        (["a = b"], ["c = d"], Replacement((), ("a", " ", "=", " ", "b"), ("c", " ", "=", " ", "d"), (), 0)),
        (["a"], ["a  "], None),
        (["x"] * 7, ["y"] * 7, None),
        ([], [], None),
        (["same"], ["same"], None),
    ],
)  # fmt: skip
def test_what_a_change_is(old, new, expected):
    assert change_between(old, new) == expected


def places(text, line, old, new, earlier=()):
    lines = text.split("\n")
    change = change_between([old], [new])
    assert change is not None
    lines[line] = new
    return {one.line: one.text for one in find_candidates(lines, range(line, line + 1), change, earlier)}


def test_other_uses_of_a_renamed_name_are_whole_words():
    text = "def f(total):\n    totals = [total]\n    print(totals, total.total)\n    return subtotal"
    assert places(text, 0, "def f(total):", "def f(amount):") == {
        1: "    totals = [amount]",
        2: "    print(totals, amount.amount)",
    }


def test_lines_of_the_same_shape():
    text = "a = load(p, 1)\nb = load(q, 1)\nc = load(r, 1, strict=True)\nd = dump(p, 1)\nprint(1)"
    change = change_between(["a = load(p, 1)"], ["a = load(p, 1, strict=True)"])
    found = find_candidates(text.split("\n"), range(1), change)
    assert {one.line: (one.text, one.features[1]) for one in found} == {
        1: ("b = load(q, 1, strict=True)", "strict"),
        3: ("d = dump(p, 1, strict=True)", "strict"),
        4: ("print(1, strict=True)", "loose"),  # it ends alike, and that is all
    }


def test_nearest_first_and_not_too_many():
    text = "\n".join(["use(name)"] * 500)
    lines = text.split("\n")
    lines[250] = "use(label)"
    found = find_candidates(lines, range(250, 251), Rename("name", "label", False))
    assert len(found) == 50 and {one.line for one in found[:2]} == {249, 251}
    assert {one.features for one in found[:1]} == {("rename", "use", "once", "many", "near")}


def test_confidence_leaves_out_what_was_seen_too_seldom():
    few, enough = Tally(MIN_SEEN - 1, MIN_SEEN - 1), Tally(MIN_SEEN, MIN_SEEN // 2)
    tallies = {"rename:use:once:few:near": few, "rename:use:once:many:near": enough}
    assert confidence("rename:use:once:many:near", tallies) == enough.share
    assert confidence("rename:use:once:few:near", tallies) == Tally(59, 44).share
    assert confidence("rename:use:again:few:near", tallies) == Tally(59, 44).share
    assert confidence("insert:strict", tallies) == 0.0


def test_the_calibration_of_the_package_is_large_and_says_what_can_be_expected():
    tallies = load_tallies()
    assert sum(one.num_seen for one in tallies.values()) > 10_000
    assert all(0 <= one.num_right <= one.num_seen for one in tallies.values())
    # What was made twice nearby is made again; what merely ends alike somewhere is not.
    assert confidence("replace:strict:again:few:level:near") > 0.8
    assert confidence("rename:use:again:few:near") > 0.6
    assert confidence("insert:loose:once:many:other:far") < 0.1


TEXT = "def area(w, h):\n    print(w, h)\n\n    size = w * h\n    return size + w\n"
ON = {"nextEdit": {"enabled": True, "minConfidence": 30}}


def type_over(editor, line, column, old, new):
    """Character by character, as a user does."""
    for _ in old:
        editor.change((line, column), (line, column + 1), "")
    for count, character in enumerate(new):
        editor.change((line, column + count), (line, column + count), character)


async def ask(editor, **fields):
    return await editor.execute("unmask.nextEdit", {"uri": URI, "version": editor.versions[URI], **fields})


async def test_it_is_off_unless_it_is_switched_on(engine, connect):
    async with connect() as editor:
        editor.open(TEXT)
        type_over(editor, 0, 9, "w", "width")
        assert await ask(editor) is None
        with pytest.raises(LspError, match="uri is missing"):
            await editor.execute("unmask.nextEdit", {})
    assert engine.asked_edits == []


async def test_a_rename_goes_on_from_use_to_use(engine, connect):
    async with connect(ON) as editor:
        editor.open(TEXT)
        type_over(editor, 0, 9, "w", "width")
        engine.edits["Rename `w` to `width`. Change nothing else."] = "    print(width, h)\n"
        found = await ask(editor)
        assert (found["status"], found["line"], found["kind"]) == ("ready", 1, "rename")
        assert found["confidence"] >= 0.3 and len(found["edits"]) == 1
        assert engine.asked_edits[-1].selection == "    print(w, h)\n"
        assert editor.of_method("$/unmask/editPreview") == []  # nobody asked for it
        answer = await editor.execute("unmask.acceptEdit", {"editId": found["editId"]})
        assert answer["status"] == "applied" and "    print(width, h)\n" in editor.buffers[URI].text

        engine.edits["Rename `w` to `width`. Change nothing else."] = "    size = width * h\n"
        second = await ask(editor)
        assert (second["line"], second["status"]) == (3, "ready")
        assert second["confidence"] > found["confidence"]  # the same change twice: sure now


async def test_what_was_rejected_or_not_made_is_not_found_again(engine, connect):
    async with connect(ON) as editor:
        editor.open(TEXT)
        type_over(editor, 0, 9, "w", "width")
        rename = "Rename `w` to `width`. Change nothing else."
        engine.edits[rename] = "    print(width, h)\n"
        found = await ask(editor)
        assert (found["line"], found["instruction"]) == (1, rename)
        assert await editor.execute("unmask.rejectEdit", {"editId": found["editId"]}) is True
        engine.edits[rename] = "    something = else_\n"  # not the change that is expected
        assert await ask(editor) is None  # the model was asked about the next use, and made something else of it
        assert engine.asked_edits[-1].selection == "    size = w * h\n"
        num_asked = len(engine.asked_edits)
        engine.edits[rename] = "    return size + width\n"
        found = await ask(editor)
        assert found["line"] == 4 and len(engine.asked_edits) == num_asked + 1


@pytest.mark.parametrize(
    ("old", "new", "instruction"),
    [
        ("b = load(p, 1)", "b = load(p, 1, k=2)", "Insert `, k=2` between `,1` and `)`. Change nothing else."),
        ("b = load(p, 1)", "b = load(p, 2)", "Replace `1` with `2`. Change nothing else."),
        ("b = load(p, 1)", "b = load(1)", "Remove `p, `. Change nothing else."),
    ],
)
async def test_the_model_must_make_just_that_change(engine, connect, old, new, instruction):
    wish = {"nextEdit": {"enabled": True, "minConfidence": 1}}
    expected = new.replace("b =", "c =")
    async with connect(wish) as editor:
        for answer, is_offered in ((expected, True), (old.replace("b =", "c ="), False), (expected + "\nx = 1", False)):
            editor.open(old + "\n" + old.replace("b =", "c =") + "\n")
            editor.change((0, 0), (0, len(old)), new)
            engine.edits[instruction] = answer + "\n"
            found = await ask(editor)
            assert engine.asked_edits[-1].instruction == instruction
            assert (found is not None) is is_offered
            if found is not None:
                await editor.execute("unmask.acceptEdit", {"editId": found["editId"]})
                assert editor.buffers[URI].text == new + "\n" + expected + "\n"


async def test_an_edit_that_the_user_asks_for_goes_first(engine, connect):
    engine.edits = {"Rename `w` to `width`. Change nothing else.": "x" * 400, "do": "import os\n"}
    engine.forward_s = 0.02
    async with connect(ON) as editor:
        editor.open(TEXT)
        type_over(editor, 0, 9, "w", "width")
        params = {"command": "unmask.nextEdit", "arguments": [{"uri": URI}]}
        _, waiting = editor.begin("workspace/executeCommand", params)
        await wait_until(lambda: engine.num_forwards)
        line = {"start": {"line": 2, "character": 0}, "end": {"line": 2, "character": 0}}
        answer = await editor.execute("unmask.edit", {"uri": URI, "range": line, "instruction": "do"})
        assert answer["status"] == "applied"
        with pytest.raises(LspError, match="-32800"):
            await asyncio.wait_for(waiting, 5)
        assert engine.num_cancelled == 1


async def test_nothing_when_unsure_stale_or_without_a_pattern(engine, connect):
    async with connect({"nextEdit": {"enabled": True, "minConfidence": 100}}) as editor:
        editor.open(TEXT)
        type_over(editor, 0, 9, "w", "width")
        assert await ask(editor) is None
    async with connect(ON) as editor:
        editor.open(TEXT)
        assert await ask(editor) is None
        editor.change((2, 0), (2, 0), "    y = 1\n")
        assert await ask(editor) is None
        type_over(editor, 0, 9, "w", "width")
        assert await ask(editor, version=1) is None
        assert await ask(editor, uri="file:///other.py") is None
    assert engine.asked_edits == []


def test_a_history_is_replayed_place_by_place():
    """What the calibration counts: the rest of a commit's changes, seen from each of its places."""
    old = ["def f(n):", "    a(n)", "", "    b(n)", "", "    c(n)", "x"]
    new = ["def f(m):", "    a(n)", "", "    b(m)", "", "    c(m)", "x"]
    judged = list(replay(old, new, 0))
    seen = [(one.edit, one.candidate.line, one.is_right) for one in judged]
    assert seen == [(0, 1, False), (0, 3, True), (0, 5, True), (1, 1, False), (1, 5, True), (2, 1, False)]
    assert [one.candidate.features[2] for one in judged] == ["once"] * 3 + ["again"] * 3
    assert sum(one.num_seen for one in tally(judged).values()) == 6
