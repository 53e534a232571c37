"""Runs the `unmask` command line as a process of its own.

``start`` is a new interpreter. ``run`` forks one that has its modules loaded already, because a suite of a hundred
commands would spend most of its time on imports; everything else is the same.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.answering_engine import EngineServer, command_environment

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["diffusion_core.commands", "diffusion_core.net.launcher", "httpx", "rich.progress"])
TIMEOUT_S = 60


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Unmask:
    """The command line with an environment of its own; ``server`` is the engine it talks to, if there is one."""

    folder: Path
    server: EngineServer | None = None

    def arguments(self, *arguments: object) -> list[str]:
        remote = ["--url", self.server.url, "--token-file", str(self.folder / "token")] if self.server else []
        return [*remote, *map(str, arguments)]

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "diffusion_core.commands", *self.arguments(*arguments)],
            env=command_environment(self.folder, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A suite that runs in the background inherits an ignored SIGINT; a terminal's child does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, *arguments: object, **environment: str) -> Finished:
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            process = FORKS.Process(
                target=run_here,
                args=(self.arguments(*arguments), command_environment(self.folder, **environment), str(out), str(err)),
            )
            process.start()
            process.join(TIMEOUT_S)
            if process.is_alive():
                process.kill()
                raise TimeoutError(f"unmask {arguments[0]} took more than {TIMEOUT_S} s: {err.read_text()}")
            assert process.exitcode is not None
            return Finished(process.exitcode, out.read_bytes(), err.read_text())


def run_here(arguments: Sequence[str], environment: dict[str, str], out: str, err: str) -> None:
    """Become the command: what a shell does before it executes a program, without the execution."""
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        opened = os.open(path, flags | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    sys.argv = ["unmask", *arguments]

    from diffusion_core.commands import main

    main()
