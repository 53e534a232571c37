"""The language server's process: lost and back, none at all, a program that is no server."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from helpers.vscode import wait_for


@pytest.fixture(autouse=True)
def ready(engine):
    engine.completions["value = "] = "compute()"


def suggest(vscode, name):
    vscode.open(name, "value =\n", line=1, column=8)
    vscode.type(" ")
    vscode.wait_for_ghost_text("compute()")


def test_the_language_server_killed_and_back(vscode, tap):
    vscode.wait_for_status("Ready")
    since = len(tap)
    os.kill(int((tap.folder / "pid").read_text()), signal.SIGKILL)
    # What the status bar shows can still be the first server's word; no key is answered before the second one's.
    wait_for(
        lambda: any(status["reason"] == "ready" for status in tap.params_of("$/unmask/status", since)),
        "the second server's readiness",
        60,
        vscode.page,
    )
    assert len(tap.params_of("initialize", since)) == 1
    vscode.wait_for_status("Ready", 30)
    suggest(vscode, "server_back.py")


def processes_with(word: str) -> list[int]:
    """Processes that have this word on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


ECHO = "import os\nwhile data := os.read(0, 65536):\n    os.write(1, data)"


@pytest.mark.parametrize(
    ("program", "status"), [(["sleep"], "Starting"), ([sys.executable, "-c", ECHO], "did not start")]
)
def test_a_program_that_is_no_server_is_ended_for_the_next_one(vscode, tap, program, status):
    vscode.wait_for_status("Ready", 30)
    word = str(100_000 + os.getpid())  # this test's own
    vscode.set(unmask__server__command=[*program, word])
    wait_for(lambda: processes_with(word), "the program", page=vscode.page)
    vscode.wait_for_status(status)
    if status == "Starting":
        assert vscode.notifications() == []
    vscode.clear_notifications()
    vscode.set(unmask__server__command=tap.command(sys.executable, "-P", "-m", "lsp_server"))
    vscode.wait_for_status("Ready", 30)
    assert processes_with(word) == []
    assert vscode.notifications() == [], "what the user asked for is no error"
    suggest(vscode, f"after_{program[0][-5:]}.py")


def test_a_program_that_is_no_server_ends_with_the_window(vscode, tap):
    vscode.wait_for_status("Ready", 30)
    word = str(100_000 + os.getpid())
    vscode.set(unmask__server__command=["sleep", word])
    wait_for(lambda: processes_with(word), "the program", page=vscode.page)
    before = processes_with(word)
    vscode.reload()
    wait_for(lambda: not set(before) & set(processes_with(word)), "the end of the program", page=vscode.page)
    vscode.set(unmask__server__command=tap.command(sys.executable, "-P", "-m", "lsp_server"))
    vscode.wait_for_status("Ready", 30)


def test_a_server_that_cannot_be_started_is_named_and_one_that_can_is_started(vscode, tap):
    vscode.set(unmask__server__command=["no-such-program", "lsp"])
    vscode.wait_for_status("no-such-program, which is not a program that can be run")
    vscode.wait_for_notification("unmask.server.command starts with no-such-program")
    vscode.screenshot("no-server")
    vscode.clear_notifications()
    vscode.set(unmask__server__command=[], unmask__server__python=sys.executable)
    vscode.wait_for_status("Ready", 30)
    suggest(vscode, "python_setting.py")
    vscode.set(unmask__server__python="/usr/bin/false")
    vscode.wait_for_status("unmask.server.python is /usr/bin/false")
