"""`unmask serve --ray` as a process, with the replicas that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from helpers.answering_engine import TOKEN, command_environment
from helpers.lsp_engine import free_port

from diffusion_core.config import ClientConfig


class RayServer:
    """A running server; its log is in ``folder``."""

    def __init__(self, folder: Path, model: Path, replicas: int = 2) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        arguments = ["--token-file", str(folder / "token"), "serve", "--ray", "--replicas", str(replicas)]
        arguments += ["--port", str(self.port), "--model", str(model), "--edit-model", str(model), "--device", "cpu"]
        # Forwards of a tiny model: threads would only wait for each other.
        environment = command_environment(folder, UNMASK_RAY_CPUS_PER_REPLICA="0.5", OMP_NUM_THREADS="1")
        environment["RAY_TMPDIR"] = "/tmp"  # its sockets' paths must be short
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diffusion_core.commands", *arguments], env=environment, stdout=log, stderr=log
            )
        self.started: list[psutil.Process] = []

    def config(self) -> ClientConfig:
        return ClientConfig(url=f"http://127.0.0.1:{self.port}", token=TOKEN)

    def note_processes(self) -> None:
        """Everything that was started, so that what is left at the end can be seen."""
        self.started = psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas that run now."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "ServeReplica" in _title(child)]

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit code and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), time.monotonic() - began

    def survivors(self) -> list[str]:
        """What still runs of all that was started."""
        _, alive = psutil.wait_procs(self.started, timeout=10)
        return [_title(process) for process in alive]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def run_ray_server(folder: Path, model: Path, replicas: int = 2) -> Iterator[RayServer]:
    server = RayServer(folder, model, replicas)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.note_processes()
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(30)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
                for child in server.started:
                    if child.is_running():
                        os.kill(child.pid, signal.SIGKILL)
