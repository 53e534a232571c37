"""Starting and stopping the engine process. No ``fork``: the language server has threads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import diffusion_core
from diffusion_core.config import EngineConfig, cache_folder
from diffusion_core.errors import ConfigError, UnmaskError, Unreachable
from diffusion_core.net.auth import CLIENT_TOKEN_VARIABLE
from diffusion_core.net.state_files import StateFiles

# -P: the working folder is the user's project; nothing may be imported from there.
ENGINE_COMMAND = (sys.executable, "-P", "-m", "diffusion_core.net.engine_process")

_POLL_S = 0.02
_STOP_GRACE_S = 10.0


class SpawnedEngine:
    """An engine process that this process has started. It outlives this process."""

    def __init__(self, config: EngineConfig, files: StateFiles, idle_exit_s: float, command: Sequence[str]) -> None:
        """Start it.

        Raises:
            ConfigError: the program or the state folder cannot be used.
        """
        files.failure.unlink(missing_ok=True)
        self._files = files
        arguments = [*command, "--state-file", str(files.state), "--engine", json.dumps(asdict(config))]
        arguments += ["--idle-exit-s", str(idle_exit_s)]
        try:
            descriptor = os.open(files.stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                self._process = subprocess.Popen(  # noqa: S603  # our own program; the arguments are not shell text
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=descriptor,
                    stderr=descriptor,
                    cwd=files.state.parent,
                    env=_make_environment(),
                    start_new_session=True,  # a Ctrl-C in the editor's terminal is not for the engine
                )
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigError(f"cannot start the engine process: {error.strerror} ({error.filename})") from None
        # Reaps the process when it ends, and keeps the handle alive until then.
        threading.Thread(target=self._process.wait, name="engine-reaper", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def explain_exit(self) -> UnmaskError:
        """Why it ended before it listened: in its own words if it left any."""
        failure = self._files.read_failure()
        if failure is not None and failure.pid == self.pid:
            return failure.as_exception()
        return Unreachable(f"the engine process ended at its start ({self._describe_exit()}): see {self._files.stderr}")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def _describe_exit(self) -> str:
        status = self.exit_status
        if status is None or status >= 0:
            return f"exit status {status}"
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"


async def stop_process(pid: int, files: StateFiles) -> None:
    """Stop the engine ``pid``, which holds the owner's lock of ``files``: gracefully, after ten seconds at once."""
    give_up = time.monotonic() + _STOP_GRACE_S
    _signal(pid, signal.SIGTERM)
    # The lock is free a moment before the process is gone and its memory with it.
    while files.is_owned() or (_exists(pid) and time.monotonic() < give_up):
        if time.monotonic() > give_up:
            _signal(pid, signal.SIGKILL)
            give_up = time.monotonic() + _STOP_GRACE_S
        await asyncio.sleep(_POLL_S)
    files.remove_state(pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has just ended: what was wanted
    except PermissionError:
        raise ConfigError(f"the engine process {pid} belongs to another user: it cannot be stopped") from None


def _make_environment() -> dict[str, str]:
    """This process's environment, with every path in it absolute because the engine runs in another folder."""
    environment = {name: value for name, value in os.environ.items() if name != CLIENT_TOKEN_VARIABLE}
    environment["UNMASK_CACHE_DIR"] = str(cache_folder().absolute())
    paths = [str(Path(path).absolute()) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    # A source folder that is used without being installed has to be found by the child as well.
    source = Path(diffusion_core.__file__).parents[1]
    if str(source) not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *paths}:
        paths.insert(0, str(source))
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment
