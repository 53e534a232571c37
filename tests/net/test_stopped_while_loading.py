"""A process that is told to stop while its model loads ends well: not aborted by a thread that is deep in torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers.answering_engine import TOKEN, command_environment

from diffusion_core.config import DEFAULT_MODEL, EngineConfig

pytestmark = pytest.mark.real_model  # a tiny model is loaded before anybody can be stopped


def environment(folder: Path) -> dict[str, str]:
    own = command_environment(folder, UNMASK_SERVER_TOKEN=TOKEN)
    own.pop("UNMASK_CACHE_DIR")  # where the model is
    return own


def commands(folder: Path) -> dict[str, list[str]]:
    serve = [sys.executable, "-m", "diffusion_core.commands", "serve", "--port", "0", "--model", DEFAULT_MODEL]
    local = [sys.executable, "-m", "diffusion_core.net.engine_process", "--state-file", str(folder / "engine.json")]
    local += ["--engine", json.dumps(asdict(EngineConfig(edit_model=DEFAULT_MODEL))), "--idle-exit-s", "60"]
    return {"serve": serve, "local": local}


def says(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["serve", "local"])
def test_it_ends_well(tmp_path: Path, kind: str, after_s: float) -> None:
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            commands(tmp_path)[kind], env=environment(tmp_path), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    give_up = time.monotonic() + 60
    listening = log if kind == "serve" else tmp_path / "engine.json"
    while not says(listening, "listening on port" if kind == "serve" else "port"):
        assert process.poll() is None and time.monotonic() < give_up, log.read_text()
        time.sleep(0.02)
    time.sleep(after_s)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()
    assert not says(log, "terminate called")
    assert not (tmp_path / "engine.json").exists(), "what it put down for others is gone with it"
