"""Edits with an instruction in a real editor: asked for, watched, decided about, refused when the text changed."""

from __future__ import annotations

import contextlib

import pytest
from helpers.vscode import wait_for
from helpers.vscode_edits import (
    AFTER,
    BEFORE,
    INSTRUCTION,
    NEW,
    OLD,
    TEXT,
    ask,
    cancels_lost,
    is_dirty,
    lens,
    make,
    press_lens,
    start_afresh,
    wait_for_end,
    wait_for_lens,
    zones,
)

ONLY_SECOND = OLD.replace(
    "total = total + value\n    return total / len(values)",
    "total += value\n    return total / len(values) if values else 0.0",
)


@pytest.fixture(autouse=True)
def ready(vscode, engine):
    start_afresh(vscode, engine)


def line_above_zone(vscode, number) -> str:
    """The line of code that a change is shown below."""
    script = """number => {
        const y = node => node.getBoundingClientRect().y;
        const top = y([...document.querySelectorAll('.editor-instance .review-widget')][number]);
        const lines = [...document.querySelectorAll('.editor-instance .view-lines > .view-line')];
        return lines.filter(line => y(line) < top).sort((a, b) => y(a) - y(b)).at(-1).textContent;
    }"""
    return vscode.page.evaluate(script, number).replace("\xa0", " ")


def test_the_preview_is_drawn_and_never_in_the_buffer_and_one_change_of_two_is_accepted(vscode, engine, tap):
    engine.forward_s = 0.04
    start = len(tap)
    ask(vscode, "mean.py")
    wait_for_lens(vscode, f"Unmask: {INSTRUCTION}")
    wait_for(lambda: "The mean of the values" in shown_text(vscode), "the preview", page=vscode.page)
    vscode.screenshot("edit-preview")
    assert not is_dirty(vscode)
    wait_for_lens(vscode, "2 changes")
    wait_for(lambda: len(zones(vscode)) == 2, "both changes", page=vscode.page)
    vscode.page.wait_for_timeout(300)
    vscode.screenshot("edit-hunks")
    assert "The mean of the values" in zones(vscode)[0]
    assert "total += value" in zones(vscode)[1]
    assert not is_dirty(vscode)
    assert vscode.page.locator(".part.panel:visible").count() == 0, "the comments panel must stay closed"

    vscode.press("Alt+n")  # the first one; the cursor goes to the second
    wait_for_lens(vscode, "1 of 2 changes open")
    vscode.screenshot("edit-half-decided")
    vscode.press("Alt+y")
    wait_for(lambda: is_dirty(vscode), "the change", page=vscode.page)
    vscode.expect(BEFORE + ONLY_SECOND + AFTER)
    wait_for_end(vscode)
    vscode.press("Control+z")
    vscode.expect(TEXT)

    (asked,) = tap.commands("unmask.edit", start)
    assert asked["apply"] is False
    assert len(asked["originalSha256"]) == 64
    assert tap.commands("unmask.acceptEdit", start) == [{"editId": asked["editId"], "hunks": [1]}]


def shown_text(vscode) -> str:
    """What decorations add to the editor's lines."""
    script = """() => [...document.querySelectorAll('.editor-instance .view-lines span')].flatMap(node =>
        ['::before', '::after'].map(side => getComputedStyle(node, side).content).filter(text => text !== 'none')
    ).join(' ')"""
    return vscode.page.evaluate(script).replace("\xa0", " ")


def test_buttons_of_the_changes_and_a_crlf_document(vscode):
    make(vscode, "crlf_edit.py", TEXT.replace("\n", "\r\n"))
    accept = vscode.page.locator(".review-widget:visible .codicon-check")
    accept.first.click()
    wait_for_lens(vscode, "1 of 2 changes open")
    vscode.page.locator(".review-widget:visible .codicon-check").last.click()
    wait_for(lambda: is_dirty(vscode), "the change", page=vscode.page)
    vscode.expect((BEFORE + NEW + AFTER).replace("\n", "\r\n"))
    vscode.press("Control+z")
    vscode.expect(TEXT.replace("\n", "\r\n"))


def test_an_edit_moves_with_its_text_and_is_refused_while_that_text_is_another(vscode):
    make(vscode, "stale.py")
    vscode.go_to(2)
    vscode.type("x = 1\n")  # above: everything moves
    vscode.page.wait_for_timeout(200)
    assert "2 changes" in lens(vscode)
    vscode.screenshot("edit-moved")
    assert line_above_zone(vscode, 0) == "def mean(values):"
    vscode.go_to(6, 14)
    vscode.type("1")  # inside
    wait_for_lens(vscode, "the text was changed since")
    assert zones(vscode) == []
    vscode.screenshot("edit-stale")
    vscode.press("Backspace")  # the old text again: the edit fits again
    wait_for_lens(vscode, "2 changes")
    wait_for(lambda: len(zones(vscode)) == 2, "both changes", page=vscode.page)
    press_lens(vscode, "Accept all")
    wait_for_end(vscode)
    vscode.expect("import math\nx = 1\n\n\n" + NEW + AFTER)


def test_a_stale_edit_runs_again_on_the_new_text(vscode, engine):
    make(vscode, "again.py")
    vscode.go_to(5, 14)
    vscode.type("1")
    wait_for_lens(vscode, "the text was changed since")
    press_lens(vscode, "Run again")
    wait_for(lambda: len(engine.asked_edits) == 2, "the second request", page=vscode.page)
    assert "total = 01" in engine.asked_edits[1].selection
    wait_for_lens(vscode, "changes")
    vscode.press("Alt+Shift+N")
    wait_for_end(vscode)
    vscode.expect(TEXT.replace("total = 0\n", "total = 01\n"))


@contextlib.contextmanager
def edits_held(tap):
    """What the server applies waits on its way."""
    hold = tap.folder / "hold"
    hold.touch()
    try:
        yield
    finally:
        hold.unlink(missing_ok=True)


def test_text_typed_between_the_servers_check_and_the_change_wins(vscode, tap):
    make(vscode, "race.py")
    start = len(tap)
    with edits_held(tap):
        press_lens(vscode, "Accept all")
        wait_for(lambda: tap.params_of("workspace/applyEdit", start), "the server's edit", page=vscode.page)
        vscode.go_to(5, 14)
        vscode.type("7")
        vscode.page.wait_for_timeout(200)
    vscode.wait_for_notification("the text was changed since the edit was made")
    vscode.expect(TEXT.replace("total = 0\n", "total = 07\n"))
    vscode.clear_notifications()


def test_reject_all_leaves_the_file_as_it_is(vscode, tap):
    start = len(tap)
    make(vscode, "reject.py")
    vscode.press("Alt+Shift+N")
    wait_for_end(vscode)
    assert not is_dirty(vscode)
    assert len(tap.commands("unmask.rejectEdit", start)) == 1


def test_escape_stops_the_model(vscode, engine):
    engine.forward_s = 0.3
    before = engine.num_cancelled
    ask(vscode, "cancel.py")
    wait_for_lens(vscode, f"Unmask: {INSTRUCTION}")
    wait_for(lambda: engine.asked_edits, "the request", page=vscode.page)
    vscode.press("Escape")
    wait_for_end(vscode)
    wait_for(lambda: engine.num_cancelled > before, "the cancel at the engine", page=vscode.page)
    assert not is_dirty(vscode)
    assert vscode.notifications() == []


def test_escape_while_the_answer_is_on_its_way_ends_the_edit_too(vscode, engine, tap):
    engine.forward_s = 0.02
    start = len(tap)
    with cancels_lost(tap):
        ask(vscode, "cancel_late.py")
        wait_for_lens(vscode, f"Unmask: {INSTRUCTION}")
        wait_for(lambda: engine.asked_edits, "the request", page=vscode.page)
        vscode.press("Escape")
        wait_for_end(vscode)
    (asked,) = tap.commands("unmask.edit", start)
    wait_for(lambda: tap.commands("unmask.rejectEdit", start), "that the answer is forgotten", page=vscode.page)
    assert tap.commands("unmask.rejectEdit", start) == [{"editId": asked["editId"]}]
    assert not is_dirty(vscode)
    make(vscode, "cancel_late_again.py")
    vscode.press("Alt+Shift+N")
    wait_for_end(vscode)


def test_the_diff_shows_the_whole_edit_and_decides_about_it(vscode):
    make(vscode, "diff.py")
    press_lens(vscode, "Diff")
    vscode.page.locator(".tab.active", has_text="edit by Unmask").wait_for()
    right = vscode.page.locator(".monaco-diff-editor .editor.modified .lines-content > .view-lines")
    wait_for(lambda: "if values else" in right.inner_text().replace("\xa0", " "), "the proposed text", page=vscode.page)
    vscode.page.wait_for_timeout(500)
    vscode.screenshot("edit-diff")
    vscode.page.locator(".editor-actions .codicon-check-all:visible").first.click()
    vscode.page.locator(".tab", has_text="edit by Unmask").wait_for(state="detached")
    vscode.expect(BEFORE + NEW + AFTER)


def test_text_of_more_lines_than_there_were_is_shown_below_them(vscode, engine):
    engine.forward_s = 0.04
    engine.edits["write two functions"] = "def one():\n    return 1\ndef two():\n    return 2\n"
    vscode.open("insert.py", "import math\n\n\n", line=3)
    vscode.press("Alt+i")
    vscode.quick_input().fill("write two functions")
    vscode.press("Enter")
    wait_for(lambda: any("return 1" in text for text in zones(vscode)), "the lines below", page=vscode.page)
    vscode.screenshot("edit-insert-preview")
    assert not is_dirty(vscode)
    wait_for_lens(vscode, "1 change,")
    press_lens(vscode, "Accept all")
    wait_for(lambda: is_dirty(vscode), "the change", page=vscode.page)
    assert "def one():\n    return 1\ndef two():\n    return 2\n" in vscode.save()


def test_an_instruction_is_remembered_and_a_refused_edit_says_why(vscode, engine):
    engine.edits[INSTRUCTION] = OLD
    ask(vscode, "remember.py")
    vscode.wait_for_notification("The model left the selection as it is")
    vscode.clear_notifications()
    vscode.press("Alt+i")
    vscode.quick_input()
    wait_for(lambda: INSTRUCTION in " ".join(vscode.quick_rows()), "the instruction of before", page=vscode.page)
    vscode.press("Escape")


def test_the_server_knows_that_code_actions_may_ask(tap):
    initialize = tap.params_of("initialize")[0]
    assert initialize["capabilities"]["experimental"]["unmask"] == {"editPrompt": True}


def test_without_a_selection_the_definition_is_the_scope(vscode, engine, tap):
    start = len(tap)
    vscode.open("scope.py", TEXT, line=6, column=9)
    vscode.press("Alt+i")
    vscode.quick_input()
    wait_for(lambda: vscode.page.locator(".quick-input-title", has_text="mean").count(), "the scope", page=vscode.page)
    vscode.type("handle")
    wait_for(lambda: any(asked.edit for asked in engine.warmed), "the warm-up", page=vscode.page)
    vscode.quick_input().fill(INSTRUCTION)
    vscode.press("Enter")
    wait_for_lens(vscode, "2 changes")
    assert tap.commands("unmask.edit", start)[0]["range"]["start"]["line"] == 3
    vscode.press("Alt+Shift+N")


def choose_action(vscode, title):
    vscode.press("Control+.")
    row = vscode.page.locator(".action-widget .monaco-list-row", has_text=title).first
    row.wait_for()
    vscode.screenshot("code-actions")
    for _ in range(10):
        if "focused" in (row.get_attribute("class") or ""):
            break
        vscode.press("ArrowDown")
    vscode.press("Enter")


def test_actions_of_the_light_bulb_run_at_once_or_ask(vscode, engine, tap):
    class Whatever(dict[str, str]):
        def __missing__(self, _):
            return NEW

    engine.edits = Whatever()
    start = len(tap)
    vscode.open("bulb.py", TEXT, line=4, column=6)
    choose_action(vscode, "add docstring")
    wait_for_lens(vscode, "2 changes")
    assert "docstring" in tap.commands("unmask.edit", start)[0]["instruction"]
    vscode.press("Alt+Shift+N")
    wait_for_end(vscode)
    choose_action(vscode, "edit with instruction")
    vscode.quick_input().fill("use sum")
    vscode.press("Enter")
    wait_for_lens(vscode, "use sum: 2 changes")
    vscode.press("Alt+Shift+N")
    wait_for_end(vscode)


def test_a_key_with_an_instruction_runs_at_once(vscode, tap):
    prompt = {
        "uri": (vscode.folder / "action.py").as_uri(),
        "range": {"start": {"line": 3, "character": 0}, "end": {"line": 8, "character": 0}},
        "instruction": INSTRUCTION,
    }
    stale = {**prompt, "version": 99}
    vscode.bind(
        {"key": "ctrl+alt+u", "command": "unmask.client.edit", "args": prompt},
        {"key": "ctrl+alt+o", "command": "unmask.client.edit", "args": stale},
    )
    vscode.wait_for_status("Ready")
    start = len(tap)
    vscode.open("action.py", TEXT, line=1)
    vscode.press("Control+Alt+u")
    wait_for_lens(vscode, "2 changes")
    assert tap.commands("unmask.edit", start)[0]["range"] == prompt["range"]
    press_lens(vscode, "Reject all")
    wait_for_end(vscode)
    vscode.press("Control+Alt+o")
    vscode.wait_for_notification("the text was changed since this action was offered")
    vscode.clear_notifications()
