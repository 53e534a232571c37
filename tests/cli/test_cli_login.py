"""`unmask login` as a person and as a script use it, and what comes after it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.answering_engine import TOKEN, EngineServer, command_environment
from helpers.unmask_process import Unmask

COMMAND = (sys.executable, "-m", "diffusion_core.commands", "login")


@pytest.fixture
def environment(tmp_path: Path, engine_server: EngineServer) -> dict[str, str]:
    return command_environment(
        tmp_path, UNMASK_CLIENT_URL=engine_server.url, PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring"
    )


def test_a_token_is_typed_unseen_tried_kept_used_and_forgotten(
    environment: dict[str, str], tmp_path: Path, engine_server: EngineServer
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        COMMAND, env=environment, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, start_new_session=True
    )
    shown = b""
    while b"Token for" not in shown:
        shown += os.read(ours, 1024)
    time.sleep(0.2)  # the prompt is there; now the terminal stops echoing
    os.write(ours, TOKEN.encode() + b"\n")
    out = process.communicate(timeout=30)[0].decode()
    os.set_blocking(ours, False)
    shown += os.read(ours, 4096)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, out
    assert "accepts the token (scripted-model)" in out and "tokens.json (readable by you alone)" in out
    assert TOKEN not in shown.decode() + out

    client = Unmask(tmp_path)
    known = {name: environment[name] for name in ("UNMASK_CLIENT_URL", "PYTHON_KEYRING_BACKEND")}
    status = client.run("status", "--json", **known)
    assert status.code == 0 and status.json["status"] == "ready"
    assert client.run("logout", **known).code == 0
    assert "run `unmask login" in client.run("status", **known).err
    again = client.run("logout", engine_server.url, **known)
    assert again.code == 1 and "no token is kept" in again.err


def test_a_token_that_the_server_refuses_is_not_kept(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(COMMAND, env=environment, input=b"wrong-t0ken\n", capture_output=True, timeout=30)
    assert done.returncode == 1
    assert b"does not accept the token" in done.stderr and b"wrong-t0ken" not in done.stderr + done.stdout
    assert not list(tmp_path.rglob("tokens.json"))
