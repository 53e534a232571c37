"""What a request shows of other places: chosen rarely, and in an order that keeps the engine's prefix cache warm.

The engine reads snippets before the file itself, so a snippet that changes costs reading everything behind it again.
Therefore a document's snippets are chosen anew only when the cursor has moved on by a good part of a screen or after a
while; a snippet that is still wanted keeps its place and its text, new ones are appended, and the kinds that change
most come last.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from diffusion_core.requests import Snippet
from lsp_server.context.declared import declared_files
from lsp_server.context.diagnostics import SeenDiagnostics
from lsp_server.context.ignore import GITIGNORE, UNMASKIGNORE, IgnoreRules, path_of_uri
from lsp_server.context.index import FileEntry, IndexLimits, WorkspaceIndex
from lsp_server.context.recent_edits import RecentEdits
from lsp_server.context.similar import SimilarPieces
from lsp_server.positions import without_lone_surrogates
from lsp_server.settings import ContextSettings
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import Trees, imports, names_in

LINES_BEFORE, LINES_AFTER = 60, 30  # whose names count as used
REGION_LINES = 20
CHOOSE_AGAIN_S = 30.0
MAX_KEPT_DOCUMENTS = 16
MAX_CLOSED_DOCUMENTS = 8
# Kinds in the order of a prompt: what changes least comes first.
DECLARED, SIMILAR, EDITS, DIAGNOSTICS = range(4)


@dataclass(frozen=True)
class Block:
    """A snippet, and what it is the snippet of: the same ``key`` with the same text is the same block."""

    kind: int
    key: str
    snippet: Snippet


@dataclass(frozen=True)
class _Kept:
    region: int
    chosen_at_s: float
    blocks: tuple[Block, ...]


class ContextCollector:
    """Chooses snippets for a session's documents; nothing is read or kept for kinds that are switched off."""

    def __init__(self, trees: Trees, snapshots: Callable[[], Iterable[Snapshot]]) -> None:
        """``snapshots`` gives the open documents."""
        self._trees, self._snapshots = trees, snapshots
        self._settings = ContextSettings()
        self._roots: tuple[Path, ...] = ()
        self._ignore = IgnoreRules()
        self._index: WorkspaceIndex | None = None
        self._index_key: object = None
        self._similar, self._edits = SimilarPieces(), RecentEdits()
        self.diagnostics = SeenDiagnostics()
        self._closed: OrderedDict[str, Snapshot] = OrderedDict()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    @property
    def index(self) -> WorkspaceIndex | None:
        """The workspace's index, if declarations are wanted."""
        return self._index

    @property
    def is_on(self) -> bool:
        """Whether any kind is wanted."""
        wanted = self._settings
        return wanted.declarations or wanted.similar or wanted.recent_edits or wanted.diagnostics

    @property
    def follows_edits(self) -> bool:
        """Whether changes of documents are to be told."""
        return self._settings.recent_edits

    def configure(self, settings: ContextSettings, roots: Iterable[Path], ignore: IgnoreRules) -> None:
        """Take over settings; an index is begun, ended or begun anew as they say."""
        self._settings, self._roots, self._ignore = settings, tuple(roots), ignore
        self._kept.clear()
        limits = IndexLimits(max_files=settings.max_files, max_bytes=settings.max_megabytes * 1_000_000)
        key = (self._roots, limits, ignore.key) if settings.declarations and self._roots else None
        if key == self._index_key:
            return
        self.close()
        self._index_key = key
        if key is not None:
            self._index = WorkspaceIndex(self._roots, ignore, limits)
            self._index.start()

    def close(self) -> None:
        """Stop the index."""
        if self._index is not None:
            self._index.close()
        self._index = self._index_key = None

    def note_change(self, old: Snapshot, new: Snapshot) -> None:
        """The user changed a document."""
        self._edits.note(old, new, time.monotonic() * 1000)

    def note_close(self, snapshot: Snapshot) -> None:
        """A document was closed; it may still be like another one for a while."""
        self._kept.pop(snapshot.uri, None)
        if self._settings.similar:
            self._closed[snapshot.uri] = snapshot
            self._closed.move_to_end(snapshot.uri)
            while len(self._closed) > MAX_CLOSED_DOCUMENTS:
                self._closed.popitem(last=False)
        self.note_file(snapshot.uri)

    def note_file(self, uri: str) -> None:
        """A file was saved, made or deleted."""
        path = path_of_uri(uri)
        if path is None:
            return
        if path.name in (GITIGNORE, UNMASKIGNORE):
            self._ignore.look_again()
            self._kept.clear()
        if self._index is not None:
            self._index.note_change(path)

    def snippets(self, snapshot: Snapshot, point: Point, *, may_choose: bool = True) -> tuple[Snippet, ...]:
        """Snippets for a request at ``point``. Without ``may_choose`` those that the last request had."""
        if not self.is_on:
            return ()
        kept, now_s = self._kept.get(snapshot.uri), time.monotonic()
        region = point.line // REGION_LINES
        is_stale = kept is None or kept.region != region or now_s - kept.chosen_at_s > CHOOSE_AGAIN_S
        if may_choose and is_stale:
            wanted = list(self._candidates(snapshot, point))
            blocks = arrange(kept.blocks if kept else (), wanted, self._settings.max_chars)
            kept = self._kept[snapshot.uri] = _Kept(region, now_s, blocks)
            self._kept.move_to_end(snapshot.uri)
            while len(self._kept) > MAX_KEPT_DOCUMENTS:
                self._kept.popitem(last=False)
        return tuple(block.snippet for block in kept.blocks) if kept else ()

    def repository(self) -> str:
        """The name of the project."""
        return self._roots[0].name if self._roots else ""

    def _candidates(self, snapshot: Snapshot, point: Point) -> Iterator[Block]:
        """Blocks that are wanted now, by kind, the most wanted of each kind first."""
        if self._settings.declarations:
            yield from self._declared(snapshot, point)
        if self._settings.similar:
            seen = {**self._closed, **{found.uri: found for found in self._snapshots()}}
            others = [found for found in seen.values() if not self._is_ignored(found.uri)]
            for piece in self._similar.find(snapshot, point, others):
                yield _block(SIMILAR, f"{piece.uri}#{piece.first_line}", self._name(piece.uri), piece.text)
        if self._settings.recent_edits:
            found = self._edits.describe(time.monotonic() * 1000, self._shown_name)
            if found:
                yield _block(EDITS, "edits", "recent changes.diff", "\n".join(found))
        if self._settings.diagnostics:
            text = self.diagnostics.describe(snapshot, point.line)
            if text:
                yield _block(DIAGNOSTICS, "diagnostics", "problems.txt", text)

    def _declared(self, snapshot: Snapshot, point: Point) -> Iterator[Block]:
        path, tree = path_of_uri(snapshot.uri), self._trees.of(snapshot)
        if self._index is None or path is None or tree is None:
            return
        found = declared_files(
            path=path,
            language=snapshot.language,
            imported=imports(tree),
            used=names_in(tree.lines, point.line - LINES_BEFORE, point.line + LINES_AFTER),
            index=self._index,
            live=partial(self._live, {path_of_uri(found.uri): found for found in self._snapshots()}),
        )
        for file in found:
            # The index asked when it read the file; since then it may have been named in an ignore file, or deleted
            # with its folder.
            if self._ignore.is_ignored(file.path, self._roots) or not file.path.exists():
                continue
            yield _block(DECLARED, str(file.path), self._relative(file.path), file.text)

    def _live(self, opened: Mapping[Path | None, Snapshot], entry: FileEntry) -> FileEntry:
        """The entry of a file as it is in the editor, which may write its URI in another way than we would."""
        snapshot = opened.get(entry.path)
        tree = self._trees.of(snapshot) if snapshot is not None else None
        return FileEntry.of(entry.path, tree) if tree is not None else entry

    def _is_ignored(self, uri: str) -> bool:
        return self._ignore.is_ignored_uri(uri, self._roots)

    def _shown_name(self, uri: str) -> str | None:
        return None if self._is_ignored(uri) else self._name(uri)

    def _name(self, uri: str) -> str:
        path = path_of_uri(uri)
        return self._relative(path) if path is not None else unquote(urlsplit(uri).path).rsplit("/", 1)[-1] or "text"

    def _relative(self, path: Path) -> str:
        root = next((root for root in self._roots if root in path.parents), None)
        return path.relative_to(root).as_posix() if root is not None else "/".join(path.parts[-3:]).lstrip("/")


def arrange(old: Iterable[Block], wanted: list[Block], max_chars: int) -> tuple[Block, ...]:
    """The wanted blocks within the budget: old ones where they were, new ones behind them, kind after kind."""
    room, taken = max_chars, {}
    for block in wanted:
        size = len(block.snippet.path) + len(block.snippet.text)
        if size <= room and block.key not in taken:
            taken[block.key] = block
            room -= size
    stay = [block for block in old if taken.get(block.key) == block]
    new = [block for block in taken.values() if block not in stay]
    return tuple(sorted([*stay, *new], key=lambda block: block.kind))


def _block(kind: int, key: str, path: str, text: str) -> Block:
    return Block(kind, key, Snippet(path=path, text=without_lone_surrogates(text)))
