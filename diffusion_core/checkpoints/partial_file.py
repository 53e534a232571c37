"""A file that grows over several attempts, with a running sha256 of what it holds. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from diffusion_core.checkpoints.atomic import read_chunks
from diffusion_core.errors import CheckpointError


class PartialFile:
    """The unfinished file of a pull. ``size`` and ``sha256`` always speak of what was verified or appended.

    Opened through :meth:`resume_parts` or :meth:`resume_bytes`, closed as a context manager.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.path = path
        self._file = path.open("r+b")
        self._digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def resume_parts(self, parts: Sequence[tuple[int, str]], on_bytes: Callable[[int], None]) -> int:
        """Keep the leading whole parts whose (size, sha256) are right, cut off the rest; give the number kept."""
        for number, (size, sha256) in enumerate(parts):
            digest = hashlib.sha256()
            whole = self._digest.copy()
            for chunk in read_chunks(self._file, size):
                digest.update(chunk)
                whole.update(chunk)
                on_bytes(len(chunk))
            if digest.hexdigest() != sha256:  # also when the file ends early
                self._cut()
                return number
            self._digest = whole
            self.size += size
        self._cut()
        return len(parts)

    def resume_bytes(self, most: int, on_bytes: Callable[[int], None]) -> int:
        """Keep whatever is there, at most that many bytes; give the number kept."""
        for chunk in read_chunks(self._file, most):
            self._digest.update(chunk)
            self.size += len(chunk)
            on_bytes(len(chunk))
        self._cut()
        return self.size

    def append(self, chunks: Iterable[bytes], on_bytes: Callable[[int], None]) -> None:
        """Append pieces as they come; what was written stays when the iteration fails."""
        for chunk in chunks:
            self._file.write(chunk)
            self._digest.update(chunk)
            self.size += len(chunk)
            on_bytes(len(chunk))
        self._file.flush()

    def append_part(self, chunks: Iterable[bytes], size: int, sha256: str, what: str) -> None:
        """Append one part if it is right, else nothing.

        Raises:
            CheckpointError: another size or hash; the message names both.
        """
        digest, whole, start = hashlib.sha256(), self._digest.copy(), self.size
        written = 0
        try:
            for chunk in chunks:
                written += len(chunk)
                if written > size:
                    raise CheckpointError(f"{what} is longer than the {size} bytes expected")
                self._file.write(chunk)
                digest.update(chunk)
                whole.update(chunk)
            self._file.flush()
            if digest.hexdigest() != sha256:
                raise CheckpointError(
                    f"{what} has the wrong content and was removed: sha256 {digest.hexdigest()}, expected {sha256}"
                )
        except BaseException:
            self._cut(start)
            raise
        self._digest, self.size = whole, start + written

    def verify(self, sha256: str, what: str) -> None:
        """Remove the file and raise :class:`CheckpointError`, naming both hashes, unless the sha256 is right."""
        found = self._digest.hexdigest()
        if found != sha256:
            self._file.close()
            self.path.unlink()
            raise CheckpointError(f"{what} has the wrong content and was removed: sha256 {found}, expected {sha256}")

    def restart(self) -> None:
        """Throw away everything."""
        self._digest = hashlib.sha256()
        self.size = 0
        self._cut()

    def _cut(self, size: int | None = None) -> None:
        end = self.size if size is None else size
        self._file.seek(end)
        self._file.truncate()
