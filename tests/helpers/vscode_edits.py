"""An edit of one function in a real VS Code: what is asked for, and what the window shows of it."""

from __future__ import annotations

import contextlib

from helpers.vscode import wait_for

OLD = """def mean(values):
    total = 0
    for value in values:
        total = total + value
    return total / len(values)
"""
NEW = '''def mean(values):
    """The mean of the values, 0 if there are none."""
    total = 0
    for value in values:
        total += value
    return total / len(values) if values else 0.0
'''
BEFORE, AFTER = "import math\n\n\n", "\n\nprint(mean([]))\n"
TEXT = BEFORE + OLD + AFTER
INSTRUCTION = "handle an empty list"


def start_afresh(vscode, engine):
    """The window and the engine as each test expects them."""
    vscode.wait_for_status("Ready")
    engine.edits.clear()
    engine.edits[INSTRUCTION] = NEW
    engine.asked_edits.clear()
    engine.warmed.clear()
    engine.forward_s = 0.005


def lens(vscode) -> str:
    return " ".join(
        text.replace("\xa0", " ") for text in vscode.page.locator(".codelens-decoration:visible").all_inner_texts()
    )


def wait_for_lens(vscode, text):
    wait_for(lambda: text in lens(vscode), f"the line {text!r} above the edit", page=vscode.page)


def press_lens(vscode, title):
    vscode.page.locator(".codelens-decoration a", has_text=title).first.click()


def zones(vscode) -> list[str]:
    """The new text of each change that is open."""
    return [
        text.replace("\xa0", " ")
        for text in vscode.page.locator(".review-widget:visible .comment-body").all_inner_texts()
    ]


def wait_for_end(vscode):
    wait_for(lambda: not zones(vscode) and not lens(vscode), "the end of the edit", page=vscode.page)


def is_dirty(vscode) -> bool:
    return vscode.page.locator(".tab.active.dirty").count() > 0


def ask(vscode, name, text=TEXT, instruction=INSTRUCTION):
    """Select the function and ask for an edit of it."""
    vscode.open(name, text, line=4)
    vscode.press(*["Shift+ArrowDown"] * 5)
    vscode.press("Alt+i")
    vscode.quick_input().fill(instruction)
    vscode.press("Enter")


def make(vscode, name, text=TEXT):
    """An edit that waits for a decision about two changes."""
    ask(vscode, name, text)
    wait_for_lens(vscode, "2 changes")
    wait_for(lambda: len(zones(vscode)) == 2, "both changes", page=vscode.page)


@contextlib.contextmanager
def cancels_lost(tap):
    """Escape comes too late: the server's answer is on its way."""
    deaf = tap.folder / "deaf"
    deaf.touch()
    try:
        yield
    finally:
        deaf.unlink()
