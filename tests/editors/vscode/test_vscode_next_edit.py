"""After a change of the user's: the next place for it is offered as an edit, and only while nothing else is done."""

from __future__ import annotations

import pytest
from helpers.lsp_engine import TOKEN
from helpers.vscode import wait_for

TEXT = "def area(w, h):\n    print(w, h)\n\n    size = w * h\n    return size + w\n"
RENAME = "Rename `w` to `width`. Change nothing else."


@pytest.fixture(scope="module")
def engine_settings(engine):
    return {
        "unmask.engine.url": engine.url,
        "unmask.engine.token": TOKEN,
        "unmask.nextEdit.enabled": True,
        "unmask.nextEdit.minConfidence": 30,
    }


@pytest.fixture(autouse=True)
def ready(vscode, engine):
    vscode.wait_for_status("Ready")
    engine.edits.clear()
    engine.asked_edits.clear()


def zones(vscode) -> list[str]:
    """The new text of each change that is open."""
    return [
        text.replace("\xa0", " ")
        for text in vscode.page.locator(".review-widget:visible .comment-body").all_inner_texts()
    ]


def rename(vscode, engine, name):
    engine.edits[RENAME] = "    print(width, h)\n"
    vscode.open(name, TEXT, line=1, column=11)
    vscode.press("Backspace")
    vscode.type("width")


def wait_for_offer(vscode, text):
    wait_for(lambda: [zone for zone in zones(vscode) if text in zone], f"the offer {text!r}", page=vscode.page)


def test_a_rename_is_carried_on_from_line_to_line(vscode, engine):
    rename(vscode, engine, "area.py")
    wait_for_offer(vscode, "print(width, h)")
    vscode.screenshot("next-edit")
    engine.edits[RENAME] = "    size = width * h\n"
    vscode.press("Alt+Shift+y")
    wait_for_offer(vscode, "size = width * h")
    engine.edits[RENAME] = "    return size + width\n"
    vscode.press("Alt+Shift+y")
    wait_for_offer(vscode, "return size + width")
    vscode.press("Alt+Shift+n")
    wait_for(lambda: not zones(vscode), "the end of the offer", page=vscode.page)
    expected = TEXT.replace("area(w", "area(width").replace("print(w", "print(width").replace("= w *", "= width *")
    vscode.expect(expected)


def test_an_offer_goes_when_the_user_types_on_and_comes_with_the_new_name(vscode, engine):
    rename(vscode, engine, "typed.py")
    wait_for_offer(vscode, "print(width, h)")
    engine.edits["Rename `w` to `width2`. Change nothing else."] = "    print(width2, h)\n"
    vscode.type("2")
    wait_for_offer(vscode, "print(width2, h)")
    vscode.press("Alt+Shift+y")
    wait_for(lambda: not zones(vscode), "the end of the offer", page=vscode.page)
    vscode.expect(TEXT.replace("area(w", "area(width2").replace("print(w", "print(width2"))


def test_nothing_is_offered_after_an_undo(vscode, engine):
    rename(vscode, engine, "undone.py")
    wait_for_offer(vscode, "print(width, h)")
    num_asked = len(engine.asked_edits)
    vscode.press("Control+z")
    wait_for(lambda: not zones(vscode), "the end of the offer", page=vscode.page)
    vscode.page.wait_for_timeout(1500)
    assert zones(vscode) == [] and len(engine.asked_edits) == num_asked
