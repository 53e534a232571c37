"""Which files are left alone: neither completed nor edited nor shown to the model.

Three sources, as users know them: ``.gitignore`` (of every folder from the repository's root down), ``.unmaskignore``
beside it (same syntax; it may take back what ``.gitignore`` says), and globs of the settings for secrets, which no
file can take back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

GITIGNORE, UNMASKIGNORE = ".gitignore", ".unmaskignore"
LOOK_AGAIN_S = 2.0  # a folder's files are looked at again after this long
_MAX_IGNORE_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class _Folder:
    """The rules of one folder, and what they were read from."""

    spec: GitIgnoreSpec | None
    stamps: tuple[tuple[int, int], ...]
    looked_at: float


class IgnoreRules:
    """May be asked from any thread; the worst that can happen is that a file is read twice."""

    def __init__(self, *, use_gitignore: bool = True, globs: Sequence[str] = ()) -> None:
        self._names = (GITIGNORE, UNMASKIGNORE) if use_gitignore else (UNMASKIGNORE,)
        self._globs = tuple(globs)
        self._folders: dict[Path, _Folder] = {}
        self._secrets: GitIgnoreSpec | None = None

    @property
    def key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What the rules were made from: equal keys, equal rules."""
        return self._names, self._globs

    def is_ignored_uri(self, uri: str, roots: Sequence[Path] = ()) -> bool:
        """Whether a document is to be left alone. One without a path (never saved) is not.

        A name counts under any scheme: an editor opens a file that is still to be made as ``untitled:/project/.env``,
        a cell as ``vscode-notebook-cell:/project/private.ipynb#...``, an older state as ``git:/project/.env``.
        """
        path = path_of_uri(uri) or _named_path(uri)
        return path is not None and self.is_ignored(path, roots)

    def look_again(self) -> None:
        """Read the files of rules anew at the next question: one of them was written."""
        self._folders.clear()

    def is_ignored(self, path: Path, roots: Sequence[Path] = (), *, is_folder: bool = False) -> bool:
        """Whether a file (or a folder with all that is in it) is to be left alone; ``roots`` are the workspace's."""
        root = _root_of(path, roots)
        parts = path.relative_to(root).parts
        if self._is_secret(parts):
            return True
        folder, specs = root, [self._spec_of(root)]
        for index, name in enumerate(parts):
            is_last = index == len(parts) - 1
            if self._is_excluded(root, specs, parts[: index + 1], is_folder=is_folder or not is_last):
                return True  # what is in an excluded folder cannot be taken back
            if not is_last:
                folder = folder / name
                specs.append(self._spec_of(folder))
        return False

    def _is_secret(self, parts: tuple[str, ...]) -> bool:
        if not self._globs:
            return False
        if self._secrets is None:
            self._secrets = _parse(self._globs)
        return bool(self._secrets.match_file("/".join(parts)))

    def _is_excluded(
        self, root: Path, specs: list[GitIgnoreSpec | None], parts: tuple[str, ...], *, is_folder: bool
    ) -> bool:
        """What the deepest rule that speaks of the path says."""
        if parts[-1] == ".git":
            return True
        for depth in range(len(specs) - 1, -1, -1):
            spec = specs[depth]
            if spec is None:
                continue
            found = spec.check_file("/".join(parts[depth:]) + ("/" if is_folder else ""))
            if found.include is not None:
                return found.include
        return False

    def _spec_of(self, folder: Path) -> GitIgnoreSpec | None:
        known, now = self._folders.get(folder), time.monotonic()
        if known is not None and now - known.looked_at < LOOK_AGAIN_S:
            return known.spec
        stamps = tuple(_stamp(folder / name) for name in self._names)
        if known is not None and known.stamps == stamps:
            spec = known.spec
        else:
            lines = [line for name in self._names for line in _read_lines(folder / name)]
            spec = _parse(lines) if lines else None
        self._folders[folder] = _Folder(spec, stamps, now)
        return spec


def path_of_uri(uri: str) -> Path | None:
    """The path that a URI of a document names; None if it names none."""
    from pygls.uris import to_fs_path

    scheme = uri.partition(":")[0]
    if scheme in {"untitled", "git", "output"} or "/" not in uri:
        return None
    try:
        text = to_fs_path(uri)
    except ValueError:  # half an IPv6 address, for one
        return None
    return Path(text) if text else None


def _named_path(uri: str) -> Path | None:
    """The path in a URI that is no file's."""
    try:
        text = unquote(urlsplit(uri).path)
    except ValueError:
        return None
    return Path(text) if text.startswith("/") else None


def _root_of(path: Path, roots: Sequence[Path]) -> Path:
    """Where rules begin to count: the repository's folder, else the workspace's, else the file's own."""
    for parent in path.parents:
        if (parent / ".git").exists():
            return parent
    return next((root for root in roots if root in path.parents), path.parent)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, -1)
    return (found.st_mtime_ns, found.st_size)


def _read_lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_IGNORE_FILE_BYTES:
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _parse(lines: Sequence[str]) -> GitIgnoreSpec:
    """Rules from lines; one that is no pattern counts as none, as in git."""
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True
