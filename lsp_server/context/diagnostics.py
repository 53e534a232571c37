"""Diagnostics of other language servers, as far as an editor shows them to us.

LSP has no way to ask for them; an editor sends those around the cursor along when it asks for code actions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from lsp_server.snapshot import Snapshot

MAX_DOCUMENTS = 32
MAX_SHOWN = 5
NEARBY_LINES = 20
MAX_MESSAGE = 200


class SeenDiagnostics:
    """The latest of each document, valid for the version that they were seen with."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, tuple[tuple[int, str], ...]]] = OrderedDict()

    def note(self, snapshot: Snapshot, found: Sequence[tuple[int, str]]) -> None:
        """Lines and messages that came with a request about this version."""
        self._seen[snapshot.uri] = (snapshot.version, tuple(sorted(set(found))))
        self._seen.move_to_end(snapshot.uri)
        while len(self._seen) > MAX_DOCUMENTS:
            self._seen.popitem(last=False)

    def describe(self, snapshot: Snapshot, line: int) -> str:
        """Those near a line, each with the line that it is about; empty if none is known or the text has changed."""
        version, found = self._seen.get(snapshot.uri, (None, ()))
        if version != snapshot.version:
            return ""
        near = [(at, text) for at, text in found if abs(at - line) <= NEARBY_LINES and at < len(snapshot.lines)]
        shown = (f"{snapshot.content(at).strip()}\n  {' '.join(text.split())[:MAX_MESSAGE]}" for at, text in near)
        return "\n".join(list(shown)[:MAX_SHOWN])
