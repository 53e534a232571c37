"""The program of the shared local engine: ``python -m diffusion_core.net.engine_process``, started by the launcher.

It owns the engine's lock as long as it lives, so there is one engine whatever its starters do, and it leaves word in
a file when it cannot start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_core.config import MIB, EngineConfig, ServerConfig
from diffusion_core.errors import ConfigError, UnmaskError
from diffusion_core.native import leave
from diffusion_core.net.observing.logs import TextFormatter, add_request_id
from diffusion_core.net.quiet_logs import describe_exception
from diffusion_core.net.state_files import StateFiles, try_lock

if TYPE_CHECKING:
    from diffusion_core.net.deferred import StartableEngine

EXIT_FAILED = 1
EXIT_ANOTHER_RUNS = 3

# An engine that was told to stop may hold its lock a little longer.
_OWNERSHIP_TIMEOUT_S = 15.0
# Somebody at this machine waits for it to stop; who is cut off sends the request again.
_DRAIN_S = 3.0
_MAX_LOG_BYTES = 1 * MIB

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str], make: Callable[[EngineConfig], StartableEngine] | None = None) -> int:
    """Run the engine until it is told to stop or idle; returns the exit status. ``make`` replaces the engine."""
    options = _parse(arguments)
    os.umask(0o077)
    files = StateFiles(options.state_file)
    _log_to(files.log)
    with _ownership(files) as is_owner:
        if not is_owner:
            return EXIT_ANOTHER_RUNS
        # What a predecessor left behind: from here on, a state file under a held lock is this process's.
        files.state.unlink(missing_ok=True)
        files.remove_outdated()
        try:
            _run(options, files, make)
        except UnmaskError as error:
            failure: UnmaskError = error
        except ImportError as error:
            failure = ConfigError(f"the engine needs the package {error.name}: pip install 'unmask[engine]'")
        except Exception as error:  # whatever it is, the launcher must learn of it
            logger.error("the engine failed: %s", describe_exception(error))
            failure = UnmaskError(f"the engine failed to start ({type(error).__name__}): see {files.log}")
        else:
            return 0
        logger.error("stopped: %s: %s", failure.code, failure)
        files.write_failure(failure)
        return EXIT_FAILED


def _run(
    options: argparse.Namespace, files: StateFiles, make: Callable[[EngineConfig], StartableEngine] | None
) -> None:
    # Here, not at the top: a missing web framework must become a message in the failure file.
    from diffusion_core.net.serve import make_engine, run_server

    run_server(
        EngineConfig(**json.loads(options.engine)),
        ServerConfig(host="127.0.0.1", port=0, idle_exit_s=options.idle_exit_s, drain_s=_DRAIN_S, reload_settle_s=0.0),
        state_file=files.state,
        make=make or make_engine,
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The shared local engine; started by the launcher.")
    parser.add_argument("--state-file", type=Path, required=True)
    parser.add_argument("--engine", required=True, help="the engine's configuration as JSON")
    parser.add_argument("--idle-exit-s", type=float, required=True)
    return parser.parse_args(arguments)


def _log_to(path: Path) -> None:
    handler = RotatingFileHandler(path, maxBytes=_MAX_LOG_BYTES, backupCount=1)
    handler.setFormatter(TextFormatter())
    handler.addFilter(add_request_id)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@contextlib.contextmanager
def _ownership(files: StateFiles) -> Iterator[bool]:
    """Hold the owner's lock for the rest of the process; False if another engine serves or will soon."""
    give_up = time.monotonic() + _OWNERSHIP_TIMEOUT_S
    while (lock := try_lock(files.owner_lock)) is None:
        if files.read_state() is not None or time.monotonic() > give_up:
            yield False
            return
        time.sleep(0.05)
    try:
        yield True
    finally:
        lock.release()


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
