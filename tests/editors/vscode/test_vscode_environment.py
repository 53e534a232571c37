"""A user who has no language server: the extension offers to install one, and does."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A PATH with a Python and without ``unmask``."""
    programs = tmp_path_factory.mktemp("programs")
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (programs / f"python3.{sys.version_info.minor}").symlink_to(python)
    for name in ("node", "sh", "bash", "uname"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    return {"PATH": str(programs), "PYTHONPATH": ""}


@pytest.fixture(scope="module")
def engine_settings(engine):
    from helpers.lsp_engine import TOKEN

    # The wheel that comes with the extension, without the engine's packages: a remote engine needs none of them.
    return {
        "unmask.server.command": [],
        "unmask.engine.url": engine.url,
        "unmask.engine.token": TOKEN,
    }


def test_the_server_is_installed_after_asking(vscode, engine):
    vscode.wait_for_status("No language server was found")
    vscode.wait_for_notification("pip install")
    vscode.screenshot("install-offer")
    vscode.page.locator(".notification-list-item a.monaco-button", has_text="Create environment").click()
    vscode.wait_for_status("Ready", 240)
    engine.completions["value = "] = "compute()"
    vscode.open("installed.py", "value =\n", line=1, column=8)
    vscode.type(" ")
    vscode.wait_for_ghost_text("compute()")
    pythons = list((vscode.data / "User" / "globalStorage" / "unmask.unmask").glob("environment/bin/python"))
    assert len(pythons) == 1
