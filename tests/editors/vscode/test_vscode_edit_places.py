"""Where the changes of an edit are: on the proposed side of a diff, and while the text around them changes."""

from __future__ import annotations

import pytest
from helpers.vscode import wait_for
from helpers.vscode_edits import (
    AFTER,
    BEFORE,
    INSTRUCTION,
    OLD,
    make,
    press_lens,
    start_afresh,
    wait_for_end,
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
    wait_for_end(vscode)
    accepted = with_docstring if key == "Alt+y" else OLD.replace(last, new_last)
    assert [each["hunks"] for each in tap.commands("unmask.acceptEdit", start)] == [[0 if key == "Alt+y" else 1]]
    vscode.expect(BEFORE + accepted + AFTER)
