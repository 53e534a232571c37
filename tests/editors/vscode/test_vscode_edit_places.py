"""Where the changes of an edit are: on the proposed side of a diff, and while the text around them changes."""

from __future__ import annotations

import pytest
from helpers.vscode import wait_for
from helpers.vscode_edits import (
    AFTER,
    BEFORE,
    INSTRUCTION,
    NEW,
    OLD,
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


DOCSTRING = '    """The mean.\n' + "\n".join(f"    {number}" for number in range(8)) + '\n    """\n'
HEAD = "def mean(values):\n"


def wait_for_proposed(vscode, text, is_there=True):
    """Until the right side of the diff has a text, or has it no longer."""
    right = vscode.page.locator(".monaco-diff-editor .editor.modified .lines-content > .view-lines")
    wait_for(
        lambda: (text in right.inner_text().replace("\xa0", " ")) == is_there, f"{text!r} in the diff", page=vscode.page
    )


@pytest.mark.parametrize(("key", "other_key"), [("Alt+y", "Alt+n"), ("Alt+n", "Alt+y")])
def test_keys_on_the_proposed_side_of_a_diff_decide_about_the_change_at_the_cursor(vscode, engine, tap, key, other_key):
    start = len(tap)
    with_docstring = OLD.replace(HEAD, HEAD + DOCSTRING)
    last, new_last = "return total / len(values)", "return total / len(values) if values else 0.0"
    engine.edits[INSTRUCTION] = with_docstring.replace(last, new_last)
    make(vscode, f"diff_keys_{key[-1]}.py")
    press_lens(vscode, "Diff")
    vscode.page.locator(".tab.active", has_text="edit by Unmask").wait_for()
    wait_for_proposed(vscode, "if values else")
    vscode.go_to(8)  # in the docstring, at the line number that the second change has in the file
    vscode.press(key)
    wait_for_proposed(vscode, "The mean.", is_there=key == "Alt+y")
    vscode.page.wait_for_timeout(500)  # the cursor is on the second change now
    vscode.press(other_key)
    # Both are decided: only now does the server hear of it, and the diff goes.
    wait_for(lambda: tap.commands("unmask.acceptEdit", start), "what was accepted", page=vscode.page)
    wait_for_end(vscode)
    accepted = with_docstring if key == "Alt+y" else OLD.replace(last, new_last)
    assert [each["hunks"] for each in tap.commands("unmask.acceptEdit", start)] == [[0 if key == "Alt+y" else 1]]
    vscode.expect(BEFORE + accepted + AFTER)


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ((4, 1), ("Backspace",)),
        ((8, 31), ("Delete",)),
        ((4, 1), (*["Shift+ArrowDown"] * 5, "Delete")),
        ((7, 1), (*["Shift+ArrowDown"] * 2, "Delete")),
    ],
)
def test_undoing_a_change_across_the_border_of_an_edit_brings_it_back(vscode, request, place, keys):
    before, after = "import math\n\n# above\n", "# below\n"
    make(vscode, f"border_{request.node.callspec.id.replace('-', '_')}.py", before + OLD + after)
    vscode.go_to(*place)
    vscode.press(*keys)
    wait_for_lens(vscode, "the text was changed since")
    vscode.press("Control+z")
    wait_for_lens(vscode, "2 changes")
    wait_for(lambda: len(zones(vscode)) == 2, "both changes", page=vscode.page)
    press_lens(vscode, "Accept all")
    wait_for_end(vscode)
    vscode.expect(before + NEW + after)


def test_an_edit_whose_lines_were_deleted_does_not_run_again_on_others(vscode, engine):
    make(vscode, "gone.py")
    vscode.go_to(4)
    vscode.press(*["Shift+ArrowDown"] * 5, "Delete")
    wait_for_lens(vscode, "the text was changed since")
    press_lens(vscode, "Run again")
    vscode.wait_for_notification("the lines of the edit are gone")
    vscode.clear_notifications()
    assert len(engine.asked_edits) == 1
    press_lens(vscode, "Discard")
    wait_for_end(vscode)
    vscode.expect(BEFORE + AFTER)
