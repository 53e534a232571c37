"""The files by which all editors of one user find the one shared engine, and agree that it is one.

For each engine configuration there are, in the state folder::

    engine-KEY.json         where the engine listens and its token (mode 0600), written once it listens
    engine-KEY.failed.json  why the last one could not start
    engine-KEY.start.lock   held by whoever is starting an engine
    engine-KEY.owner.lock   held by the engine itself as long as it lives: the operating system frees it however the
                            process ends, so a state file whose lock is free is stale
    engine-KEY.log          its log;  engine-KEY.stderr: what a crash leaves behind
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from diffusion_core.config import EngineConfig, cache_folder, state_folder
from diffusion_core.errors import ConfigError, UnmaskError, error_from_code
from diffusion_core.net.protocol import PROTOCOL_VERSION
from diffusion_core.version import package_version

if TYPE_CHECKING:
    from filelock import BaseFileLock

_KEEP_S = 30 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """Where a running engine listens. ``started`` is in seconds since the epoch."""

    pid: int
    port: int
    token: str = field(repr=False)
    version: str
    started: float


@dataclass(frozen=True, kw_only=True)
class StartFailure:
    """Why an engine process ended before it could answer."""

    pid: int
    code: str
    message: str

    def as_exception(self) -> UnmaskError:
        """The error as it was raised in the engine process."""
        return error_from_code(self.code, self.message)


S = TypeVar("S", EngineState, StartFailure)


class StateFiles:
    """The files of one engine. ``state`` is the path of its state file; the others stand beside it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.failure = state.with_suffix(".failed.json")
        self.start_lock = state.with_suffix(".start.lock")
        self.owner_lock = state.with_suffix(".owner.lock")
        self.log = state.with_suffix(".log")
        self.stderr = state.with_suffix(".stderr")

    @classmethod
    def of(cls, config: EngineConfig) -> StateFiles:
        """The files of the engine with this configuration and version. Every editor of the user finds the same."""
        identity = [asdict(config), str(cache_folder().absolute()), package_version(), PROTOCOL_VERSION]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        return cls(state_folder().absolute() / f"engine-{key}.json")

    def prepare_folder(self) -> None:
        """Create the folder, readable by its user only.

        Raises:
            ConfigError: it cannot be created or written.
        """
        try:
            self.state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _cannot_write(self.state.parent, error) from None

    def read_state(self) -> EngineState | None:
        """What a running engine wrote; None if there is nothing, or nothing readable."""
        return _read(self.state, EngineState)

    def write_state(self, state: EngineState) -> None:
        """Publish where the engine listens, all at once and for its user only."""
        self._write(self.state, state)

    def remove_state(self, pid: int) -> None:
        """Withdraw the state file, unless another process has written it since."""
        state = self.read_state()
        if state is None or state.pid == pid:
            self.state.unlink(missing_ok=True)

    def read_failure(self) -> StartFailure | None:
        """Why the last engine could not start, if it could not."""
        return _read(self.failure, StartFailure)

    def write_failure(self, error: UnmaskError) -> None:
        """Leave word of why the engine of this process could not start."""
        self._write(self.failure, StartFailure(pid=os.getpid(), code=error.code, message=str(error)))

    def remove_outdated(self) -> None:
        """Remove what engines of other configurations and versions wrote for people to read, after a month.

        Locks stay: a lock file that is replaced while somebody waits for it is two locks.
        """
        oldest = time.time() - _KEEP_S
        for pattern in ("engine-*.log*", "engine-*.stderr", "engine-*.failed.json"):
            for path in self.state.parent.glob(pattern):
                with suppress(OSError):  # another process may be doing the same
                    if path.stat().st_mtime < oldest:
                        path.unlink()

    def is_owned(self) -> bool:
        """Whether an engine process lives, listening or about to."""
        lock = try_lock(self.owner_lock)
        if lock is not None:
            lock.release()
        return lock is None

    def _write(self, path: Path, content: EngineState | StartFailure) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(content), file)
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _cannot_write(self.state.parent, error) from None


def try_lock(path: Path) -> BaseFileLock | None:
    """The lock on ``path``, which the operating system frees when the process ends; None if another one holds it.

    Raises:
        ConfigError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    except OSError as error:
        raise _cannot_write(path.parent, error) from None
    return lock


def _cannot_write(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write the state folder {folder} ({error.strerror}): set UNMASK_STATE_DIR to another")


def _read(path: Path, cls: type[S]) -> S | None:
    try:
        content: Any = json.loads(path.read_bytes())
        for each in fields(cls):
            kind = type(content[each.name])
            if kind.__name__ != each.type and (kind, each.type) != (int, "float"):  # annotations are text here
                return None
        return cls(**{each.name: content[each.name] for each in fields(cls)})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged file is as good as none: a new engine replaces it


def resolve_folders(config: EngineConfig) -> EngineConfig:
    """The configuration with folders as absolute paths: the engine runs in another working folder."""
    return replace(
        config,
        model=resolve_model(config.model),
        edit_model=resolve_model(config.edit_model),
        drafter=resolve_model(config.drafter),
        tuning=resolve_model(config.tuning),
    )


def resolve_model(model: str) -> str:
    """The name of a model, or the absolute path of the folder that ``model`` is."""
    path = Path(model).expanduser()
    is_path = (os.sep in model or model.startswith((".", "~"))) and path.exists()
    return str(path.absolute()) if is_path else model
