"""Files and folders that appear whole or not at all, locks between processes, and disk space. No torch.

A folder is written beside its final place under a name that begins with a dot, flushed to the disk and renamed.
Whoever is killed in between leaves only that dotted folder, which the next holder of the lock removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import filelock

from diffusion_core.errors import CheckpointError

CHUNK_BYTES = 4 * 1024 * 1024
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def hold_lock(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock between processes; the system releases it when its holder dies. ``on_wait`` is called once."""
    with translate_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if on_wait is not None:
            on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def require_space(folder: Path, num_bytes: int) -> None:
    """Raise :class:`CheckpointError` unless the disk of ``folder`` has that many bytes free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise CheckpointError(
            f"not enough disk space in {folder}: {format_bytes(num_bytes)} are needed, {format_bytes(free)} are free; "
            "free some, or set UNMASK_CACHE_DIR to a folder on a larger disk"
        )


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, a read-only one and missing rights into :class:`CheckpointError` that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise CheckpointError(
                f"no space left on the disk of {folder}: free some and try again (what is complete is kept), "
                "or set UNMASK_CACHE_DIR to a folder on a larger disk"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CheckpointError(f"{error.filename or folder} cannot be used: {error.strerror}") from None
        raise


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; on success it becomes ``target`` (replacing an older one), on any error it is removed.

    The caller holds the lock that belongs to ``target``, if several processes may write it.
    """
    with translate_disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}.new"
        remove(draft)
        draft.mkdir()
        try:
            yield draft
            flush_folder(draft)
            _swap(draft, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _swap(draft: Path, target: Path) -> None:
    old = target.parent / f".{target.name}.old"
    remove(old)
    if target.exists():
        target.rename(old)
    draft.rename(target)
    _flush(target.parent)
    remove(old)


def write_file(target: Path, content: bytes) -> None:
    """Write a small file atomically."""
    with translate_disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            draft.write_bytes(content)
            _flush(draft)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make every file below ``folder`` durable, so that a rename afterwards cannot publish empty files."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_chunks(file: BinaryIO, num_bytes: int | None = None) -> Iterator[bytes]:
    """The next ``num_bytes`` of a file (or the rest of it) in pieces of a bounded size."""
    left = num_bytes
    while left is None or left > 0:
        chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
        if not chunk:
            return
        if left is not None:
            left -= len(chunk)
        yield chunk


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The sha256 of a file in hexadecimal; ``on_bytes`` is told the size of every piece that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in read_chunks(file):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    return digest.hexdigest()


def format_bytes(num_bytes: int) -> str:
    """A size for people: ``491.4 MB``."""
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
