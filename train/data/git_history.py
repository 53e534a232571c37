"""A repository's commits and file contents, streamed from git's plumbing: no work tree, no whole history in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Self

from train.data.errors import CorpusError

MAX_RECORD_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
# Nothing that a repository's own configuration names may run, nothing may be fetched, nobody may be asked.
_OPTIONS = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false",
            "-c", "log.showSignature=false", "-c", "protocol.allow=never")  # fmt: skip
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
_ZERO = "0" * 40


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a commit. ``status`` is git's letter (M, A, D, T); blobs are hashes."""

    path: str
    status: str
    old_blob: str
    new_blob: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit that is no merge, with all its changes."""

    hash: str
    author: str
    email: str
    message: str
    changes: tuple[FileChange, ...]


def read_commits(git_folder: Path, revision: str = "HEAD") -> Iterator[Commit]:
    """The commits that led to a revision, newest first; merges and commits of thousands of files are left out.

    Raises:
        CorpusError: git is missing, the folder is no repository, or there is no such revision.
    """
    arguments = (
        "log", "--no-merges", "--raw", "--no-renames", "--no-abbrev", "--no-color", "--no-ext-diff", "--no-textconv",
        "--encoding=UTF-8", "--format=%x00%H%x1f%an%x1f%ae%x1f%B%x1f", "--end-of-options", revision, "--",
    )  # fmt: skip
    with TemporaryFile() as said, _running(git_folder, arguments, said) as process:
        for record in _records(_stdout(process)):
            commit = _parse(record)
            if commit is not None:
                yield commit
        if process.wait():
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines() or ["nothing"]
            raise CorpusError(f"git log failed for {git_folder}: {lines[-1]}")


class BlobReader:
    """Reads file contents by their hash from one long-lived git process; a context manager."""

    def __init__(self, git_folder: Path) -> None:
        self._running = _running(git_folder, ("cat-file", "--batch"), None)
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, blob: str, max_bytes: int) -> bytes | None:
        """The content; None where the repository lacks it, or it is larger than allowed.

        Raises:
            CorpusError: git ended, which it does when the repository is damaged.
        """
        assert self._process is not None, "a blob reader is used in a with statement"
        stdin, stdout = self._process.stdin, _stdout(self._process)
        assert stdin is not None
        try:
            stdin.write(f"{blob}\n".encode())
            stdin.flush()
        except BrokenPipeError:
            raise CorpusError(f"git cat-file ended before object {blob} was read") from None
        head = stdout.readline().split()
        if head[1:] == [b"missing"]:
            return None
        if len(head) != 3:
            raise CorpusError(f"git cannot read object {blob}")
        size = int(head[2])
        if size <= max_bytes:
            content = stdout.read(size)
            stdout.read(1)
            return content
        left = size + 1
        while left:
            left -= len(stdout.read(min(left, _CHUNK_BYTES))) or left
        return None

    def __enter__(self) -> Self:
        self._process = self._running.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process = None
        self._running.__exit__(kind, error, trace)


@contextmanager
def _running(git_folder: Path, arguments: Sequence[str], errors: IO[bytes] | None) -> Iterator[subprocess.Popen[bytes]]:
    """A git process that is ended, and whose pipes are closed, whatever happens to who reads from it."""
    command = ["git", *_OPTIONS, "-c", f"safe.directory={git_folder}", f"--git-dir={git_folder}", *arguments]
    try:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors or subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
        )
    except FileNotFoundError:
        raise CorpusError("git is not installed: the history of repositories cannot be read") from None
    try:
        yield process
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        process.wait()


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout


def _records(stream: IO[bytes]) -> Iterator[bytes]:
    """The parts between zero bytes; one that grows beyond the limit is skipped, never kept in memory."""
    kept = bytearray()
    is_too_long = False
    while chunk := stream.read(_CHUNK_BYTES):
        pieces = chunk.split(b"\0")
        for number, piece in enumerate(pieces):
            kept += piece
            if len(kept) > MAX_RECORD_BYTES:
                is_too_long = True
                kept.clear()
            if number < len(pieces) - 1:
                if kept and not is_too_long:
                    yield bytes(kept)
                kept.clear()
                is_too_long = False
    if kept and not is_too_long:
        yield bytes(kept)


def _parse(record: bytes) -> Commit | None:
    """A record of the log: hash, author, e-mail, message and raw lines; None where it is none."""
    fields = record.decode("utf-8", "replace").split("\x1f")
    if len(fields) != 5:
        return None
    name, author, email, message, raw = fields
    changes: list[FileChange] = []
    for line in raw.splitlines():
        # :100644 100644 <old> <new> M<tab>path ; a path with odd characters is quoted and of no use here
        head, tab, path = line.partition("\t")
        parts = head.split(" ")
        if not tab or len(parts) != 5 or not head.startswith(":"):
            continue
        changes.append(
            FileChange(path, parts[4], "" if parts[2] == _ZERO else parts[2], "" if parts[3] == _ZERO else parts[3])
        )
    return Commit(name, author, email, message, tuple(changes))
