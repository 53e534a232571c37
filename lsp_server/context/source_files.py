"""Which files of a workspace hold source code that can be read for declarations."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from lsp_server.context.ignore import IgnoreRules

LANGUAGE_OF: Mapping[str, str] = MappingProxyType(
    {
        ".py": "python", ".pyi": "python", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
        ".jsx": "javascriptreact", ".ts": "typescript", ".mts": "typescript", ".cts": "typescript",
        ".tsx": "typescriptreact", ".go": "go", ".rs": "rust", ".java": "java", ".c": "c", ".h": "c",
        ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".hh": "cpp", ".hpp": "cpp", ".hxx": "cpp",
    }
)  # fmt: skip
# Folders of what was installed or built, wherever no .gitignore says so.
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "site-packages", "bower_components", "vendor"})


def source_files(roots: Sequence[Path], ignore: IgnoreRules) -> Iterator[Path]:
    """Source files below ``roots``, those nearer to a root first; links are not followed."""
    folders = deque(roots)
    seen: set[Path] = set()
    while folders:
        folder = folders.popleft()
        if folder in seen:
            continue
        seen.add(folder)
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                is_hidden = entry.name.startswith(".") or entry.name in _SKIPPED
                if not is_hidden and not ignore.is_ignored(path, roots, is_folder=True):
                    folders.append(path)
            elif (
                path.suffix in LANGUAGE_OF
                and entry.is_file(follow_symlinks=False)
                and not ignore.is_ignored(path, roots)
            ):
                yield path
