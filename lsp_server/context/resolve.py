"""From an import to the files of the workspace that it may mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lsp_server.context.index import FileEntry, WorkspaceIndex
from lsp_server.syntax import Import

_SCRIPT_ENDINGS = (".ts", ".tsx", ".d.ts", ".mts", ".js", ".jsx", ".mjs", ".cjs")
_MAX_FILES = 4  # of a path that many folders have


def resolve(found: Import, path: Path, language: str, index: WorkspaceIndex) -> list[FileEntry]:
    """Files that an import in ``path`` may mean, the likeliest first; none for what is installed elsewhere."""
    entries: Iterable[FileEntry]
    match language:
        case "python":
            entries = _python(found, path, index)
        case "go":
            entries = _go(found, index)
        case "rust":
            entries = _by_tails(_rust_tails(found), index)
        case "java":
            tail = found.module.replace(".", "/")
            entries = _by_tails([f"{tail}/{found.name}.java" if found.name != "*" else f"{tail}.java"], index)
        case "c" | "cpp":
            entries = _c(found, path, index)
        case _:
            entries = _script(found, path, index)
    distinct = {entry.path: entry for entry in entries if entry.path != path}
    return list(distinct.values())[:_MAX_FILES]


def implicit_files(path: Path, language: str, index: WorkspaceIndex) -> list[FileEntry]:
    """Files whose names are visible without an import: those of the same package."""
    if language not in {"go", "java"}:
        return []
    return [entry for entry in index.in_folder(path.parent) if entry.path != path and entry.language == language]


def _by_tails(tails: list[str], index: WorkspaceIndex) -> list[FileEntry]:
    return [entry for tail in tails for entry in index.ending_with(tail)]


def _python(found: Import, path: Path, index: WorkspaceIndex) -> Iterator[FileEntry]:
    module = found.module.lstrip(".")
    num_dots = len(found.module) - len(module)
    parts = module.split(".") if module else []
    tails = [[*parts, found.name]] if found.name not in {"", "*"} else []
    tails.append(parts)
    for tail in tails:
        names = [f"{'/'.join(tail)}{ending}" for ending in (".py", ".pyi", "/__init__.py")] if tail else ["__init__.py"]
        if num_dots:
            base = path.parent
            for _ in range(num_dots - 1):
                base = base.parent
            yield from (entry for name in names if (entry := index.entry(base / name)) is not None)
        elif tail:
            yield from _by_tails(names, index)


def _script(found: Import, path: Path, index: WorkspaceIndex) -> Iterator[FileEntry]:
    module = found.module
    if module.startswith("."):
        base = Path(os.path.normpath(path.parent / module))
        stem = base.with_suffix("") if base.suffix in {".js", ".mjs", ".cjs", ".jsx"} else base  # TypeScript says so
        names = [base, *(stem.with_name(stem.name + ending) for ending in _SCRIPT_ENDINGS)]
        names += [base / f"index{ending}" for ending in _SCRIPT_ENDINGS]
        yield from (entry for name in names if (entry := index.entry(name)) is not None)
    elif "/" in module:
        tail = module.lstrip("@~/")
        yield from _by_tails(
            [f"{tail}{e}" for e in _SCRIPT_ENDINGS] + [f"{tail}/index{e}" for e in _SCRIPT_ENDINGS], index
        )


def _go(found: Import, index: WorkspaceIndex) -> Iterator[FileEntry]:
    parts = tuple(found.module.split("/"))
    for start in range(len(parts)):
        folders = index.folders_ending_with(parts[start:])
        for folder in folders:
            yield from (entry for entry in index.in_folder(folder) if entry.language == "go")
        if folders:
            return


def _rust_tails(found: Import) -> list[str]:
    parts = [part for part in found.module.split("::") if part not in {"crate", "self", "super"}]
    longest = [*parts, found.name] if found.name not in {"", "*"} else parts
    tails = ["/".join(tail) for tail in (longest, parts) if tail]
    return [f"{tail}{ending}" for tail in tails for ending in (".rs", "/mod.rs")]


def _c(found: Import, path: Path, index: WorkspaceIndex) -> Iterator[FileEntry]:
    beside = index.entry(Path(os.path.normpath(path.parent / found.module)))
    if beside is not None:
        yield beside
    yield from index.ending_with(found.module)
