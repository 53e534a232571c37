"""Runs one untrusted Python program with limits, and says how it ended.

A fresh interpreter, a folder of its own, a session of its own, kernel limits on processor time, memory, file size
and processes, and a wall clock after which the whole process group is killed. :mod:`.sandbox_child` gives the
rights away; this module starts it, drains its output, watches processes and memory, and ends it.

A program passes when it runs through its last line: an ``exit(0)`` in the middle is not a pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from diffusion_core.config import GIB, MIB
from diffusion_core.errors import UnmaskError
from diffusion_core.eval.sandbox_watch import measure_session

CHILD = Path(__file__).with_name("sandbox_child.py")
WATCH_INTERVAL_S = 0.1
OUTPUT_TAIL_BYTES = 4096


class SandboxError(UnmaskError):
    """A program could not be started at all; the message says why."""

    code: ClassVar[str] = "sandbox"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a program may use. ``memory_bytes`` bounds each process, and all of them together."""

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 4 * GIB
    file_bytes: int = 64 * MIB
    num_processes: int = 64


class Outcome(StrEnum):
    """How a program ended."""

    PASSED = "passed"
    FAILED = "failed"  # an exception, or an exit code that is not 0
    EXITED_EARLY = "exited early"  # exit code 0 before the last line
    TIMEOUT = "timeout"
    KILLED = "killed"  # a signal: processor time, a crash
    MEMORY = "memory"
    PROCESSES = "too many processes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Isolation:
    """What enforced the limits: the kernel (``namespace``, ``read-only``) or hooks in the interpreter."""

    network: str
    processes: str
    files: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The end of one program; ``output`` is the tail of what it printed."""

    outcome: Outcome
    seconds: float
    isolation: Isolation
    output: str = ""

    @property
    def passed(self) -> bool:
        """Whether the program ran through its last line."""
        return self.outcome is Outcome.PASSED


async def run_program(
    source: str, limits: Limits | None = None, *, python: str = sys.executable, use_namespaces: bool = True
) -> Verdict:
    """Run ``source`` to its end or to a limit.

    Raises:
        SandboxError: the program could not be started (no interpreter, no process left).
    """
    limits = limits or Limits()
    done_code = random.randrange(64, 112)  # noqa: S311 - not a secret: it only differs from codes a program would use
    with tempfile.TemporaryDirectory(prefix="unmask-sandbox-", ignore_cleanup_errors=True) as name:
        program, work, guard = _lay_out(Path(name), f"{source}\nraise SystemExit({done_code})\n")
        spec = {
            **asdict(limits),
            "python": python,
            "program": str(program),
            "work_folder": str(work),
            "guard_folder": str(guard),
            "use_namespaces": use_namespaces,
            "environment": sandbox_environment(work),
        }
        return await _run(spec, limits, done_code)


def _lay_out(folder: Path, text: str) -> tuple[Path, Path, Path]:
    """The program's file, its working folder, and the folder for the interpreter's guard."""
    folder = folder.resolve()
    program, work, guard = folder / "program.py", folder / "work", folder / "guard"
    work.mkdir()
    guard.mkdir()
    program.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    return program, work, guard


def sandbox_environment(work: Path) -> dict[str, str]:
    """Nothing of the user's environment; one thread for numerical libraries; a fixed hash seed."""
    return {
        "PATH": os.defpath,
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


async def _run(spec: Mapping[str, Any], limits: Limits, done_code: int) -> Verdict:
    began = time.monotonic()
    status_read, status_write = os.pipe()
    output_read, output_write = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(CHILD), json.dumps({**spec, "status_fd": status_write}),
            stdin=asyncio.subprocess.DEVNULL, stdout=output_write, stderr=output_write,
            env={}, pass_fds=(status_write,), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        os.close(status_read)
        os.close(output_read)
        raise SandboxError(f"the sandbox could not start: {error.strerror or error}") from error
    finally:
        os.close(status_write)
        os.close(output_write)
    drain = await _Drain.open(output_read)
    try:
        stopped = await _watch(process, limits)
    except BaseException:
        os.close(status_read)
        raise
    finally:
        await _kill(process)
        output = await drain.close()
    os.set_blocking(status_read, False)
    with open(status_read, "rb") as status:  # noqa: PTH123, ASYNC230 - a pipe whose writers have ended
        lines = (status.read() or b"").splitlines()
    return _judge(lines, stopped, done_code, time.monotonic() - began, output)


class _Drain:
    """Reads a pipe to its end and keeps the tail: a flood of output costs no memory."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._tail = b""
        self._transport = transport
        self._task = asyncio.create_task(self._read(reader))

    @classmethod
    async def open(cls, descriptor: int) -> _Drain:
        reader = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        return cls(reader, transport)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(65536):
            self._tail = (self._tail + chunk)[-OUTPUT_TAIL_BYTES:]

    async def close(self) -> str:
        """The tail. Does not wait long for a process that left the session and still holds the pipe."""
        await asyncio.wait([self._task], timeout=0.5)
        self._task.cancel()
        self._transport.close()
        return self._tail.decode("utf-8", "replace")


async def _watch(process: asyncio.subprocess.Process, limits: Limits) -> Outcome | None:
    """Wait for the end; the limit that was passed, if one was."""
    deadline = time.monotonic() + limits.wall_s
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome.TIMEOUT
        try:
            await asyncio.wait_for(process.wait(), min(WATCH_INTERVAL_S, left))
        except TimeoutError:
            usage = measure_session(process.pid)
            if usage.num_processes > limits.num_processes:
                return Outcome.PROCESSES
            if usage.memory_bytes > limits.memory_bytes:
                return Outcome.MEMORY
        else:
            return None


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End everything: first the supervisor, which takes its descendants with it, then the whole session.

    The end of a namespace's first process ends the namespace.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 1.0)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _judge(lines: list[bytes], stopped: Outcome | None, done_code: int, seconds: float, output: str) -> Verdict:
    fields: dict[str, Any] = {}
    for line in lines:
        fields.update(json.loads(line))
    if "error" in fields:
        raise SandboxError(f"the sandbox could not start the program: {fields['error']}")
    if "network" not in fields:
        if stopped is None:
            raise SandboxError(f"the sandbox failed before the program began: {output.strip()[-500:]}")
        fields.update(network="unknown", processes="unknown", files="unknown")
    isolation = Isolation(network=fields["network"], processes=fields["processes"], files=fields["files"])
    if stopped is not None:
        outcome = stopped
    elif "exit" in fields:
        early = Outcome.EXITED_EARLY if fields["exit"] == 0 else Outcome.FAILED
        outcome = Outcome.PASSED if fields["exit"] == done_code else early
    else:
        outcome = Outcome.KILLED
    return Verdict(outcome=outcome, seconds=seconds, isolation=isolation, output=output)
