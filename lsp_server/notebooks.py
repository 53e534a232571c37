"""Notebooks: which cells there are, in their order. The text of a cell is a document like any other.

For the model a cell continues the cells of its language that stand above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lsp_server.snapshot import Snapshot
from lsp_server.text_sync import Document


@dataclass
class Notebook:
    """A notebook at one version, and the URIs of its cells' documents from top to bottom."""

    uri: str
    version: int
    cells: list[str] = field(default_factory=list)

    def splice(self, start: int, num_deleted: int, new: list[str]) -> None:
        """Replace ``num_deleted`` cells from ``start`` on."""
        self.cells[start : start + num_deleted] = new


class Notebooks:
    """The open notebooks, and the snapshots of their cells."""

    def __init__(self) -> None:
        self._notebooks: dict[str, Notebook] = {}
        # Of each cell the last snapshot made, with what it was made of: the same text is the same object.
        self._made: dict[str, tuple[tuple[Snapshot, ...], Snapshot]] = {}

    def __getitem__(self, uri: str) -> Notebook:
        return self._notebooks[uri]

    def __contains__(self, uri: str) -> bool:
        return uri in self._notebooks

    def open(self, notebook: Notebook) -> None:
        """Take a notebook over."""
        self._notebooks[notebook.uri] = notebook

    def close(self, uri: str) -> Notebook | None:
        """Forget a notebook; the result is what it was."""
        return self._notebooks.pop(uri, None)

    def forget_cell(self, uri: str) -> None:
        """The document of a cell was closed."""
        self._made.pop(uri, None)

    def snapshot(self, document: Document, documents: Mapping[str, Document]) -> Snapshot:
        """The present text of a document; of a cell with the cells above it."""
        own = document.snapshot()
        notebook = next((found for found in self._notebooks.values() if document.uri in found.cells), None)
        if notebook is None:
            return own
        above = notebook.cells[: notebook.cells.index(document.uri)]
        parts = tuple(
            documents[uri].snapshot() for uri in above if uri in documents and documents[uri].language == own.language
        )
        kept = self._made.get(document.uri)
        sources = (*parts, own)
        if kept is not None and len(kept[0]) == len(sources) and all(map(_is_same, kept[0], sources)):
            return kept[1]
        made = replace(own, preceding=tuple(line for part in parts for line in _lines_of_cell(part)))
        self._made[document.uri] = (sources, made)
        return made


def _is_same(old: Snapshot, new: Snapshot) -> bool:
    return old is new


def _lines_of_cell(cell: Snapshot) -> list[str]:
    """The contents of a cell's lines, and an empty one that sets it apart; nothing of a blank cell."""
    contents = [cell.content(line) for line in range(len(cell.lines))]
    while contents and not contents[-1].strip():
        contents.pop()
    return [*contents, ""] if contents else []
