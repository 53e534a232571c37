"""Without any settings: the editor starts the language server, that the engine, and the default model writes."""

from __future__ import annotations

import json
import os
import signal

import pytest
from helpers.vscode import wait_for

pytestmark = [pytest.mark.real_model, pytest.mark.slow]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def environment(state):
    return {"UNMASK_STATE_DIR": str(state), "UNMASK_ENGINE_NUM_THREADS": "2"}


@pytest.fixture(scope="module")
def engine_settings():
    return {"unmask.completion.deadlineMs": 60_000, "unmask.completion.maxTokens": 32}


@pytest.fixture(autouse=True, scope="module")
def end_of_engine(window, state):
    """The engine outlives the editor, as it should: end it here."""
    yield
    for path in state.rglob("*.json"):
        found = json.loads(path.read_text())
        if "pid" in found:
            os.kill(found["pid"], signal.SIGTERM)


def wait_until_ready(vscode):
    """With the larger model at hand or without: then the status says who answers edits."""
    wait_for(
        lambda: any(text in vscode.status() for text in ("Ready", "edits are answered by the small")),
        "the engine to be ready", 120, vscode.page,
    )  # fmt: skip


def test_the_default_model_completes_a_function(vscode):
    wait_until_ready(vscode)
    before = 'def is_even(number: int) -> bool:\n    """Whether a number is even."""\n    return'
    vscode.open("even.py", before[:-1], line=3, column=10)
    vscode.type("n")
    wait_for(vscode.ghost_text, "a suggestion", 60, vscode.page)
    vscode.screenshot("real-ghost-text")
    assert "number % 2" in vscode.ghost_text()
    vscode.press("Tab")
    text = vscode.save()
    assert text.startswith(before)
    names: dict[str, object] = {}
    exec(compile(text, "even.py", "exec"), names)
    assert names["is_even"](4) is True
    assert names["is_even"](7) is False


def test_the_default_model_makes_an_edit(vscode):
    wait_until_ready(vscode)
    text = "def area(width, height):\n    return width * height\n"
    vscode.open("area.py", text, line=1)
    vscode.press("Shift+ArrowDown", "Shift+ArrowDown", "Alt+i")
    vscode.quick_input().fill("add type hints")
    vscode.press("Enter")
    wait_for(
        lambda: vscode.page.locator(".codelens-decoration", has_text="Accept all").count(), "the edit", 180, vscode.page
    )
    vscode.screenshot("real-edit")
    vscode.press("Alt+Shift+Y")
    vscode.page.locator(".tab.active.dirty").wait_for()
    changed = vscode.save()
    assert changed != text
    compile(changed, "area.py", "exec")
    vscode.press("Control+z")
    vscode.expect(text)
