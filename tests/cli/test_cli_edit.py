"""`unmask edit` against a real server process."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.answering_engine import EngineServer, command_environment
from helpers.unmask_process import Unmask

INSTRUCTION = ("--instruction", "rename b to z")


def lines(start: int, end: int) -> tuple[object, ...]:
    return ("--start-line", start, "--end-line", end)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    file.write_bytes(b"a = 1\nb = 2\nc = 3\nd = 4\n")
    return file


def test_lines_are_included_at_both_ends(unmask: Unmask, server: EngineServer, path: Path) -> None:
    server.script(**{"b = 2\nc = 3\n": "z = 2\nc = 3\n"})
    done = unmask.run("edit", path, *lines(1, 2), *INSTRUCTION, "--json")
    assert done.code == 0 and done.json["text"] == "z = 2\nc = 3\n"
    (request,) = server.requests
    assert (request["before"], request["selection"], request["after"]) == ("a = 1\n", "b = 2\nc = 3\n", "d = 4\n")
    assert (request["instruction"], request["language"]) == ("rename b to z", "python")
    assert path.read_bytes() == b"a = 1\nb = 2\nc = 3\nd = 4\n"


@pytest.mark.parametrize("reason", ["length", "deadline", "repetition"])
def test_an_unfinished_edit_is_never_written(unmask: Unmask, server: EngineServer, path: Path, reason: str) -> None:
    server.script(finish_reason=reason, **{"b = 2\nc = 3\n": "z = 2\n"})
    done = unmask.run("edit", path, *lines(1, 2), *INSTRUCTION, "--write")
    assert done.code == 1 and f"not complete ({reason})" in done.err
    assert path.read_bytes() == b"a = 1\nb = 2\nc = 3\nd = 4\n"


def test_shows_a_diff_and_leaves_the_file(unmask: Unmask, server: EngineServer, path: Path) -> None:
    server.script(**{"b = 2\n": "z = 2\n"})
    done = unmask.run("edit", path, *lines(1, 1), *INSTRUCTION)
    assert done.code == 0
    assert b"-b = 2\n+z = 2\n" in done.out and b"\x1b" not in done.out
    assert "tokens/forward" in done.err
    assert path.read_bytes().startswith(b"a = 1\nb = 2\n")


@pytest.mark.parametrize("content", [b"a\nb\nc", b"a\r\nb\r\nc\r\n", "é\u2028\nb\n😀\n".encode(), b"a\nb"])
def test_diff_can_be_applied(unmask: Unmask, server: EngineServer, tmp_path: Path, content: bytes) -> None:
    server.script(b="z\nzz", **{"b\n": "z\nzz\n"})
    folder = tmp_path / "tree"
    folder.mkdir()
    path = folder / "f.py"
    path.write_bytes(content)
    done = unmask.run("edit", path, *lines(1, 1), *INSTRUCTION, "--diff")
    # The path in the diff is the one given; for `git apply` in the folder it is shortened.
    diff = done.out.replace(str(path).lstrip("/").encode(), b"f.py")
    subprocess.run(["git", "apply", "-p1", "-"], input=diff, cwd=folder, check=True)
    assert unmask.run("edit", tmp_path / "copy.py", *lines(1, 1), *INSTRUCTION).code == 2
    (tmp_path / "copy.py").write_bytes(content)
    assert unmask.run("edit", tmp_path / "copy.py", *lines(1, 1), *INSTRUCTION, "--write").code == 0
    assert path.read_bytes() == (tmp_path / "copy.py").read_bytes() != content


def test_write_keeps_line_ends_mark_mode_and_link(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    path = tmp_path / "real.py"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\nc = 3\nd = 4\r\n")
    path.chmod(0o754)
    link = tmp_path / "link.py"
    link.symlink_to(path)
    server.script(**{"b = 2\nc = 3\n": "z = 2\nnew = 0\nc = 3\n"})
    done = unmask.run("edit", link, *lines(1, 2), *INSTRUCTION, "--write")
    assert done.code == 0, done.err
    assert path.read_bytes() == b"\xef\xbb\xbfa = 1\r\nz = 2\r\nnew = 0\r\nc = 3\nd = 4\r\n"
    assert path.stat().st_mode & 0o777 == 0o754
    assert link.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link.py", "real.py"]


def test_write_refuses_a_file_that_changed_meanwhile(unmask: Unmask, server: EngineServer, path: Path) -> None:
    server.script(delay_s=0.8, **{"b = 2\n": "z = 2\n"})
    process = unmask.start("edit", path, *lines(1, 1), *INSTRUCTION, "--write")
    while not server.requests:
        assert process.poll() is None
    path.write_bytes(b"another text\n")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and b"changed by another program" in err
    assert path.read_bytes() == b"another text\n"


def test_a_last_line_without_an_end_keeps_none(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    path = tmp_path / "f.py"
    path.write_bytes(b"a\nb")
    server.script(b="z\n")
    assert unmask.run("edit", path, *lines(1, 1), *INSTRUCTION, "--write").code == 0
    assert path.read_bytes() == b"a\nz"
    server.script(**{"a\n": "y"})
    assert unmask.run("edit", path, *lines(0, 0), *INSTRUCTION, "--write").code == 0
    assert path.read_bytes() == b"y\nz"


def test_an_empty_document_can_be_filled(unmask: Unmask, server: EngineServer, tmp_path: Path) -> None:
    path = tmp_path / "f.py"
    path.write_bytes(b"")
    server.script(**{"": "print(1)\n"})
    done = unmask.run("edit", path, *lines(0, 0), *INSTRUCTION, "--write")
    assert done.code == 0, done.err
    assert path.read_bytes() == b"print(1)\n"


def test_deleting_every_line_deletes_them(unmask: Unmask, server: EngineServer, path: Path) -> None:
    server.script(**{"b = 2\nc = 3\n": ""})
    assert unmask.run("edit", path, *lines(1, 2), *INSTRUCTION, "--write").code == 0
    assert path.read_bytes() == b"a = 1\nd = 4\n"


def test_nothing_to_change_writes_nothing(unmask: Unmask, server: EngineServer, path: Path) -> None:
    server.script(**{"b = 2\n": "b = 2\n"})
    before = path.stat()
    done = unmask.run("edit", path, *lines(1, 1), *INSTRUCTION, "--write")
    assert done.code == 0 and "nothing changed" in done.err
    assert path.stat().st_ino == before.st_ino
    assert unmask.run("edit", path, *lines(1, 1), *INSTRUCTION, "--diff").out == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*lines(0, 5), *INSTRUCTION), "5 lines"),
        ((*lines(2, 1), *INSTRUCTION), "before start line"),
        ((*lines(-1, 1), *INSTRUCTION), "-1"),
        ((*lines(0, 1), "--instruction", "  "), "instruction is empty"),
        ((*lines(0, 1), *INSTRUCTION, "--json", "--diff"), "one of"),
        ((*lines(0, 1),), "instruction"),
    ],
)
def test_bad_usage(
    unmask: Unmask, server: EngineServer, path: Path, arguments: tuple[object, ...], message: str
) -> None:
    done = unmask.run("edit", path, *arguments)
    assert (done.code, done.out) == (2, b"")
    assert message in " ".join(done.err.replace("│", " ").split())
    assert server.requests == []


def test_a_terminal_shows_the_preview_and_colours(unmask: Unmask, server: EngineServer, path: Path) -> None:
    server.script(delay_s=0.4, **{"b = 2\n": "z = 2\n"})
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "diffusion_core.commands", *unmask.arguments("edit", path, *lines(1, 1))]
    environment = command_environment(unmask.folder, TERM="xterm-256color", COLUMNS="100", LINES="30")
    process = subprocess.Popen([*command, *INSTRUCTION], stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux ends a terminal that nobody holds with EIO
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    assert process.wait(20) == 0
    preview, _, diff = shown.partition(b"--- a/")
    assert b"b = 2" in preview  # the draft, before the answer came
    assert b"\x1b[31m-b = 2" in diff and b"\x1b[32m+z = 2" in diff


def test_an_engine_error_leaves_the_file(unmask: Unmask, server: EngineServer, path: Path) -> None:
    server.script(**{"b = 2\n": {"error": "out_of_memory"}})
    done = unmask.run("edit", path, *lines(1, 1), *INSTRUCTION, "--write")
    assert (done.code, done.err) == (1, "error: scripted out_of_memory\n")
    assert path.read_bytes() == b"a = 1\nb = 2\nc = 3\nd = 4\n"
