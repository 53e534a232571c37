"""didOpen, didChange, didClose: the only writers of documents."""

from __future__ import annotations

import logging

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
    item = params.text_document
    ls.session.documents[item.uri] = Document(
        uri=item.uri, version=item.version, language=item.language_id, text=item.text, encoding=ls.session.encoding
    )


def did_change(ls: UnmaskServer, params: types.DidChangeTextDocumentParams) -> None:
    """Apply changes. Handlers of requests run after all changes that arrived before them."""
    document = ls.session.documents.get(params.text_document.uri)
    if document is None:
        logger.warning("a change of a document that is not open")
        return
    document.apply(params.content_changes, params.text_document.version)
    ls.session.note_key()


def did_close(ls: UnmaskServer, params: types.DidCloseTextDocumentParams) -> None:
    """Forget the document."""
    ls.session.documents.pop(params.text_document.uri, None)
    ls.session.trees.forget(params.text_document.uri)
