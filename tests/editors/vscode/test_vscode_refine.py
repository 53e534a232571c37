"""A further instruction on top of an edit that waits: kept when it fails, and made again."""

from __future__ import annotations

import pytest
from helpers.vscode import wait_for
from helpers.vscode_edits import (
    AFTER,
    BEFORE,
    INSTRUCTION,
    NEW,
    cancels_lost,
    is_dirty,
    make,
    press_lens,
    start_afresh,
    wait_for_end,
    wait_for_lens,
    zones,
)


@pytest.fixture(autouse=True)
def ready(vscode, engine):
    start_afresh(vscode, engine)


def test_escape_while_a_refinement_is_on_its_way_leaves_an_edit_that_can_be_accepted(vscode, engine, tap):
    make(vscode, "refine_late.py")
    engine.edits["use sum"] = refined = NEW.replace("total += value", "total = value + total")
    engine.forward_s = 0.02
    with cancels_lost(tap):
        press_lens(vscode, "Refine")
        vscode.quick_input().fill("use sum")
        vscode.press("Enter")
        wait_for_lens(vscode, "Unmask: use sum")
        wait_for(lambda: len(engine.asked_edits) == 2, "the request", page=vscode.page)
        vscode.press("Escape")
        wait_for_lens(vscode, "2 changes")
    press_lens(vscode, "Accept all")
    wait_for_end(vscode)
    vscode.expect(BEFORE + refined + AFTER)


def test_a_refinement_that_is_stopped_leaves_the_edit_that_waits(vscode, engine):
    make(vscode, "refine_stopped.py")
    engine.edits["use sum"] = NEW
    engine.forward_s = 0.3
    press_lens(vscode, "Refine")
    vscode.quick_input().fill("use sum")
    vscode.press("Enter")
    wait_for_lens(vscode, "Unmask: use sum")
    wait_for(lambda: len(engine.asked_edits) == 2, "the request", page=vscode.page)
    vscode.go_to(1)
    vscode.type("# a comment\n")  # moves the edit that is not shown, too
    vscode.press("Escape")
    wait_for(lambda: len(zones(vscode)) == 2, "the changes of before", page=vscode.page)
    press_lens(vscode, "Accept all")
    wait_for_end(vscode)
    vscode.expect("# a comment\n" + BEFORE + NEW + AFTER)


def test_refine_starts_from_the_edit_that_waits(vscode, engine, tap):
    start = len(tap)
    engine.edits["use sum"] = NEW.replace(
        "    total = 0\n    for value in values:\n        total += value\n", "    total = sum(values)\n"
    )
    make(vscode, "refine.py")
    press_lens(vscode, "Refine")
    vscode.quick_input().fill("use sum")
    vscode.press("Enter")
    wait_for(lambda: any("sum(values)" in text for text in zones(vscode)), "the refined edit", page=vscode.page)
    first, second = tap.commands("unmask.edit", start)
    assert second["refine"] == first["editId"]
    vscode.press("Alt+Shift+Y")
    wait_for(lambda: is_dirty(vscode), "the change", page=vscode.page)
    assert "total = sum(values)" in vscode.save()


def test_a_refined_edit_runs_again_with_both_instructions(vscode, engine, tap):
    engine.edits["use sum"] = NEW.replace("total += value", "total = value + total")
    engine.edits[f"{INSTRUCTION}\nuse sum"] = NEW
    make(vscode, "refine_again.py")
    press_lens(vscode, "Refine")
    vscode.quick_input().fill("use sum")
    vscode.press("Enter")
    wait_for(lambda: any("value + total" in text for text in zones(vscode)), "the refined edit", page=vscode.page)
    start = len(tap)
    press_lens(vscode, "Run again")
    wait_for(lambda: any("total += value" in text for text in zones(vscode)), "the edit made again", page=vscode.page)
    (again,) = tap.commands("unmask.edit", start)
    assert again["instruction"] == f"{INSTRUCTION}\nuse sum"
    assert "refine" not in again
    vscode.press("Alt+Shift+N")
    wait_for_end(vscode)


def test_a_refinement_that_failed_runs_again_on_the_edit_that_waits(vscode, engine, tap):
    make(vscode, "refine_failed.py")
    engine.edits["use sum"] = ""
    start = len(tap)
    press_lens(vscode, "Refine")
    vscode.quick_input().fill("use sum")
    vscode.press("Enter")
    vscode.wait_for_notification("The model gave no text")
    engine.edits["use sum"] = NEW.replace("total += value", "total = value + total")
    vscode.page.locator(".notification-list-item a.monaco-button", has_text="Run again").click()
    wait_for(lambda: any("value + total" in text for text in zones(vscode)), "the refined edit", page=vscode.page)
    first, second = tap.commands("unmask.edit", start)
    assert second["refine"] == first["refine"]
    assert second["instruction"] == "use sum"
    vscode.press("Alt+Shift+N")
    wait_for_end(vscode)
