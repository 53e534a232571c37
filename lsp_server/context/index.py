"""What the files of the workspace declare, read in the background and kept up to date.

One thread reads; it rests as long as it works, so that key strokes find the interpreter free. It reads no more files
and bytes than the limits say, and stops the first round after a while: a workspace of any size costs a bounded amount.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lsp_server.context.ignore import IgnoreRules
from lsp_server.context.source_files import LANGUAGE_OF, source_files
from lsp_server.syntax import Declaration, Import, SyntaxTree, declarations, imports, parse
from lsp_server.text_sync import split_lines

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 512 * 1024  # larger source files are generated ones
MAX_FIRST_ROUND_S = 120.0


@dataclass(frozen=True, kw_only=True)
class IndexLimits:
    """How much an index may read."""

    max_files: int = 2000
    max_bytes: int = 20_000_000
    max_first_round_s: float = MAX_FIRST_ROUND_S


@dataclass(frozen=True)
class FileEntry:
    """What one file declares and imports."""

    path: Path
    language: str
    declared: tuple[Declaration, ...]
    imported: tuple[Import, ...]
    num_bytes: int = 0

    @staticmethod
    def of(path: Path, tree: SyntaxTree) -> FileEntry:
        """The entry of a parsed text."""
        return FileEntry(path, tree.language, tuple(declarations(tree)), tuple(imports(tree)), len(tree.source))


class WorkspaceIndex:
    """Entries by path. Reading methods may be called from any thread."""

    def __init__(self, roots: Sequence[Path], ignore: IgnoreRules, limits: IndexLimits | None = None) -> None:
        self._roots, self._ignore, self._limits = tuple(roots), ignore, limits or IndexLimits()
        self._lock = threading.Lock()
        self._entries: dict[Path, FileEntry] = {}
        self._by_name: dict[str, set[Path]] = {}
        self._num_bytes = 0
        self._changed: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._is_closed = threading.Event()
        self.is_complete = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workspace index", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading; returns when the thread has ended."""
        self._is_closed.set()
        self._changed.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def note_change(self, path: Path) -> None:
        """A file was written, made or deleted: it is read again soon."""
        if path.suffix in LANGUAGE_OF:
            self._changed.put(path)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def entry(self, path: Path) -> FileEntry | None:
        """What is known of a file."""
        with self._lock:
            return self._entries.get(path)

    def ending_with(self, tail: str) -> list[FileEntry]:
        """Files whose path ends with the parts of ``tail`` (``a/b.py``), the shortest path first."""
        parts = tuple(part for part in tail.split("/") if part)
        with self._lock:
            found = [path for path in self._by_name.get(parts[-1], ()) if path.parts[-len(parts) :] == parts]
            return [self._entries[path] for path in sorted(found, key=lambda path: (len(path.parts), str(path)))]

    def in_folder(self, folder: Path) -> list[FileEntry]:
        """The files right in a folder, by name."""
        with self._lock:
            return [entry for path, entry in sorted(self._entries.items()) if path.parent == folder]

    def folders_ending_with(self, parts: tuple[str, ...]) -> list[Path]:
        """Folders with source files whose path ends with ``parts``."""
        with self._lock:
            folders = {path.parent for path in self._entries}
        return sorted(folder for folder in folders if folder.parts[-len(parts) :] == parts)

    def _run(self) -> None:
        try:
            self._first_round()
            self.is_complete.set()
            while not self._is_closed.is_set():
                path = self._changed.get()
                if path is not None:
                    self._read(path)
        except Exception as error:  # a context less is no reason to end the server; the place is enough to find it
            logger.error("the workspace index stopped: %s", type(error).__name__)
            self.is_complete.set()

    def _first_round(self) -> None:
        give_up = time.monotonic() + self._limits.max_first_round_s
        for path in source_files(self._roots, self._ignore):
            if self._is_closed.is_set() or time.monotonic() > give_up or self._is_full():
                break
            begin = time.perf_counter()
            self._read(path)
            self._is_closed.wait(time.perf_counter() - begin)
        logger.info("workspace index: %d files, %d bytes", len(self), self._num_bytes)

    def _is_full(self) -> bool:
        return len(self._entries) >= self._limits.max_files or self._num_bytes >= self._limits.max_bytes

    def _read(self, path: Path) -> None:
        entry = None
        if (path in self._entries or not self._is_full()) and not self._ignore.is_ignored(path, self._roots):
            entry = read_entry(path)
        with self._lock:
            old = self._entries.pop(path, None)
            if old is not None:
                self._num_bytes -= old.num_bytes
                self._by_name[path.name].discard(path)
            if entry is not None:
                self._entries[path] = entry
                self._num_bytes += entry.num_bytes
                self._by_name.setdefault(path.name, set()).add(path)


def read_entry(path: Path) -> FileEntry | None:
    """The entry of a file on disk; None if it is gone, too large, or has no grammar."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return None
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return None
    tree = parse([line.rstrip("\r\n") for line in split_lines(text)], LANGUAGE_OF[path.suffix])
    return FileEntry.of(path, tree) if tree is not None else None
