"""Declarations of what a text imports and uses: signatures from the files that its imports mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lsp_server.context.index import FileEntry, WorkspaceIndex
from lsp_server.context.resolve import implicit_files, resolve
from lsp_server.syntax import Declaration, Import

MAX_FILE_CHARACTERS = 1500
MAX_MEMBERS = 12  # of one class
_DATA = frozenset({"class", "struct", "interface", "trait", "enum", "type", "impl"})


@dataclass(frozen=True)
class DeclaredFile:
    """What is shown of a file."""

    path: Path
    text: str


def declared_files(
    *,
    path: Path,
    language: str,
    imported: Iterable[Import],
    used: Mapping[str, int],
    index: WorkspaceIndex,
    live: Callable[[FileEntry], FileEntry] = lambda entry: entry,
) -> list[DeclaredFile]:
    """Files with declarations that lines with the names ``used`` may need, in the order of the imports.

    ``live`` gives the entry of a file as it is in the editor.
    """
    wanted: dict[Path, tuple[FileEntry, dict[str, None]]] = {}
    for found in imported:
        if found.alias and found.alias not in used and found.name != "*":
            continue
        for entry in map(live, resolve(found, path, language, index)):
            for holder, names in _names_from(entry, found, used, index, live):
                wanted.setdefault(holder.path, (holder, {}))[1].update(dict.fromkeys(names))
    for entry in map(live, implicit_files(path, language, index)):
        names = [d.name for d in entry.declared if not d.container and d.name in used]
        if names:
            wanted.setdefault(entry.path, (entry, {}))[1].update(dict.fromkeys(names))
    shown = ((entry.path, _render(entry, list(names), used)) for entry, names in wanted.values())
    return [DeclaredFile(file, text) for file, text in shown if text and file != path]


def _names_from(
    entry: FileEntry,
    found: Import,
    used: Mapping[str, int],
    index: WorkspaceIndex,
    live: Callable[[FileEntry], FileEntry],
) -> Iterable[tuple[FileEntry, list[str]]]:
    """The declarations of a file that an import gives, and of the file that it has them from itself."""
    declared = {d.name for d in entry.declared if not d.container}
    if found.name in {"", "*", "default"}:
        yield entry, [name for name in used if name in declared]
    elif found.name in declared:
        yield entry, [found.name]
    else:
        for inner in entry.imported:  # a package that passes names on
            if inner.alias != found.name and inner.name != "*":
                continue
            for holder in map(live, resolve(inner, entry.path, entry.language, index)):
                name = inner.name if inner.name not in {"", "*"} else found.name
                if any(d.name == name and not d.container for d in holder.declared):
                    yield holder, [name]
        # The name of a module itself: `from package import module`.
        if found.name in {entry.path.stem, entry.path.parent.name}:
            yield entry, [name for name in used if name in declared]


def _render(entry: FileEntry, names: list[str], used: Mapping[str, int]) -> str:
    """Signatures in the order of the file; members of classes below them, the used ones first."""
    chosen = set(names)
    # In Rust the members of a type are those of its implementations.
    implemented = {d.name for d in entry.declared if d.kind == "impl"}
    lines: list[str] = []
    for declaration in entry.declared:
        if declaration.name not in chosen or declaration.container:
            continue
        lines.append(declaration.signature)
        if declaration.kind in _DATA and (declaration.kind == "impl" or declaration.name not in implemented):
            lines += _members(entry, declaration, used)
    text = ""
    for line in lines:
        if len(text) + len(line) + 1 > MAX_FILE_CHARACTERS:
            break
        text += f"{line}\n"
    return text


def _members(entry: FileEntry, around: Declaration, used: Mapping[str, int]) -> list[str]:
    members = [d for d in entry.declared if d.container == around.name]
    ranked = sorted(members, key=lambda d: (d.name not in used, d.name not in {"__init__", "constructor", around.name}))
    kept = {id(member) for member in ranked[:MAX_MEMBERS]}
    shown = (d.signature for d in members if id(d) in kept)
    return ["\n".join(f"    {line}" for line in signature.split("\n")) for signature in shown]
