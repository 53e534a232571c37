"""didOpen, didChange, didClose of documents: these and the notebooks' cells are the only writers of documents."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lsprotocol import types

from lsp_server.server import UnmaskServer
from lsp_server.text_sync import Document

logger = logging.getLogger(__name__)


def register(server: UnmaskServer) -> None:
    """Add the features."""
    server.feature(types.TEXT_DOCUMENT_DID_OPEN)(did_open)
    server.feature(types.TEXT_DOCUMENT_DID_CHANGE)(did_change)
    server.feature(types.TEXT_DOCUMENT_DID_CLOSE)(did_close)


def did_open(ls: UnmaskServer, params: types.DidOpenTextDocumentParams) -> None:
    """Take the document over."""
    open_document(ls, params.text_document)


def did_change(ls: UnmaskServer, params: types.DidChangeTextDocumentParams) -> None:
    """Apply changes. Handlers of requests run after all changes that arrived before them."""
    change_document(ls, params.text_document.uri, params.text_document.version, params.content_changes)


def did_close(ls: UnmaskServer, params: types.DidCloseTextDocumentParams) -> None:
    """Forget the document."""
    close_document(ls, params.text_document.uri)


def open_document(ls: UnmaskServer, item: types.TextDocumentItem) -> None:
    """A document, or a cell of a notebook, is there from now on."""
    ls.session.documents[item.uri] = Document(
        uri=item.uri, version=item.version, language=item.language_id, text=item.text, encoding=ls.session.encoding
    )


def change_document(
    ls: UnmaskServer, uri: str, version: int, changes: Sequence[types.TextDocumentContentChangeEvent]
) -> None:
    """The text of a document, or of a cell, is another one."""
    document = ls.session.documents.get(uri)
    if document is None:
        logger.warning("a change of a document that is not open")
        return
    stats, context = ls.session.stats, ls.session.context
    old = document.snapshot() if stats.watches(uri) or context.follows_edits else None
    document.apply(changes, version)
    if old is not None and stats.watches(uri):
        stats.changed(uri, changes, old, document.snapshot())
    if old is not None and context.follows_edits:
        context.note_change(old, document.snapshot())
    ls.session.note_key()


def close_document(ls: UnmaskServer, uri: str) -> None:
    """A document, or a cell, is gone."""
    ls.session.stats.closed(uri)
    document = ls.session.documents.pop(uri, None)
    if document is not None and ls.session.context.is_on:
        ls.session.context.note_close(document.snapshot())
    ls.session.trees.forget(uri)
