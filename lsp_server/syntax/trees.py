"""The trees of open documents, kept so that a key stroke parses only what it changed."""

from __future__ import annotations

from collections import OrderedDict

from lsp_server.snapshot import Snapshot
from lsp_server.syntax.tree import SyntaxTree, contents_of, is_short_enough, parse

MAX_TREES = 8


class Trees:
    """The latest tree of each recent document. For one thread."""

    def __init__(self, capacity: int = MAX_TREES) -> None:
        self._capacity = capacity
        self._trees: OrderedDict[str, tuple[Snapshot, SyntaxTree]] = OrderedDict()

    def of(self, snapshot: Snapshot) -> SyntaxTree | None:
        """The tree of a document; None without a grammar or if it is too long."""
        kept = self._trees.get(snapshot.uri)
        if kept is not None and kept[0] is snapshot:
            return kept[1]
        lines = contents_of(snapshot)
        if kept is not None and kept[0].language == snapshot.language:
            tree = kept[1].parse_again(lines) if is_short_enough(lines) else None
        else:
            tree = parse(lines, snapshot.language)
        if tree is None:
            self._trees.pop(snapshot.uri, None)
            return None
        self._trees[snapshot.uri] = (snapshot, tree)
        self._trees.move_to_end(snapshot.uri)
        while len(self._trees) > self._capacity:
            self._trees.popitem(last=False)
        return tree

    def forget(self, uri: str) -> None:
        """A document was closed."""
        self._trees.pop(uri, None)
