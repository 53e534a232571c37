"""The extension as a package: its types, its unit tests, and what its manifest promises."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from lsp_server.capabilities import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
EXTENSION = ROOT / "editors" / "vscode"
PACKAGE = json.loads((EXTENSION / "package.json").read_text())
CONTRIBUTES = PACKAGE["contributes"]
OURS = {command["command"] for command in CONTRIBUTES["commands"]}


@pytest.mark.parametrize("script", ["check", "test"])
def test_types_and_unit_tests(script, editor_in_place):
    finished = subprocess.run(["npm", "run", script], cwd=EXTENSION, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_every_command_is_registered_and_none_takes_the_place_of_the_servers():
    source = (EXTENSION / "src" / "commands.ts").read_text()
    registered = {
        f"unmask.client.{name}" for name in re.findall(r"^ {4}(\w+): (?:\(|forward|waiting)", source, re.MULTILINE)
    }
    assert registered == OURS
    assert not OURS & set(COMMANDS)


def test_menus_and_keys_name_commands_that_exist():
    used = {entry["command"] for entries in CONTRIBUTES["menus"].values() for entry in entries}
    assert used <= OURS
    for binding in CONTRIBUTES["keybindings"]:
        assert binding["command"] in OURS or binding["command"].startswith("editor.action.inlineSuggest."), binding
        assert "editorTextFocus" in binding["when"], "a key must not work outside of an editor"
        assert binding["key"].split("+")[-1] != "tab", "Tab belongs to the editor"


def test_the_lock_file_names_no_registry():
    lock = json.loads((EXTENSION / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]


def test_the_package_holds_what_it_needs_and_nothing_else(editor_in_place):
    with zipfile.ZipFile(ROOT / ".editors" / "unmask.vsix") as package:
        names = {name.removeprefix("extension/") for name in package.namelist() if name.startswith("extension/")}
    needed = {"package.json", "dist/extension.js", "images/icon.png", "images/ghost-text.png", "images/edit-hunks.png"}
    assert needed <= names
    wheels = [name for name in names if name.startswith("server/")]
    assert len(wheels) == 1 and re.fullmatch(r"server/unmask-[\w.]+-py3-none-any\.whl", wheels[0])
    assert {"readme.md", "changelog.md", "LICENSE.txt", "walkthrough/server.md", "walkthrough/engine.md"} <= names
    assert not [name for name in names if name.endswith((".ts", ".map")) or "node_modules" in name]
