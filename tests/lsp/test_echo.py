"""Answers that repeat what stands around the selection."""

import pytest
from helpers.lsp_client import URI
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.echo import strip_echo

BEFORE = "import os\nimport re\n\n\n"
AFTER = "\n\nprint(f(1))\n"
SELECTION = "def f(a):\n    return a\n"
NEW = "def f(a: int) -> int:\n    return a\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (NEW, NEW),
        (BEFORE + NEW, NEW),
        (NEW + AFTER, NEW),
        (BEFORE + NEW + AFTER, NEW),
        ("import os\nimport re\n" + NEW, NEW),
        ("import os\n" + NEW, "import os\n" + NEW),
        ("import re\nimport os\n" + NEW, "import re\nimport os\n" + NEW),
        (NEW + "print(f(2))\n", NEW + "print(f(2))\n"),
        (BEFORE, ""),
        ("", ""),
        (NEW.rstrip("\n"), NEW.rstrip("\n")),
        (BEFORE + NEW.rstrip("\n"), NEW.rstrip("\n")),
    ],
)
def test_only_the_whole_surroundings_are_taken_off(answer, expected):
    assert strip_echo(BEFORE, SELECTION, AFTER, answer) == expected


def test_a_selection_that_is_like_its_surroundings_keeps_what_it_has():
    line = "total += compute(1)\n"
    assert strip_echo(line, line, line, line * 3) == line * 3
    assert strip_echo("", SELECTION, "", NEW) == NEW
    assert strip_echo("{\n", SELECTION, "}\n", "{\n" + NEW + "}\n") == "{\n" + NEW + "}\n"


blocks = st.lists(st.sampled_from(["", "alpha = 1", "beta = 2", "    gamma()"]), max_size=4).map("\n".join)


@given(blocks, blocks, blocks, blocks)
def test_whatever_is_taken_off_stood_at_an_edge(before, selection, after, answer):
    kept = strip_echo(before, selection, after, answer)
    ways = [
        [*head.split(), *kept.split(), *tail.split()] for head in ("", before) for tail in ("", after)
    ]  # fmt: skip
    assert answer.split() in ways


async def test_an_echo_reaches_neither_preview_nor_document(engine, connect):
    engine.edits = {"hints": BEFORE + NEW + AFTER}
    wanted = {"start": {"line": 4, "character": 0}, "end": {"line": 6, "character": 0}}
    async with connect() as editor:
        editor.open(BEFORE + SELECTION + AFTER)
        answer = await editor.execute("unmask.edit", {"uri": URI, "range": wanted, "instruction": "hints"})
        assert answer["status"] == "applied" and len(answer["edits"]) == 1
        assert editor.buffers[URI].text == BEFORE + NEW + AFTER
        assert editor.of_method("$/unmask/editPreview")[-1]["settled"] == NEW
