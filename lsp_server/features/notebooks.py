"""notebookDocument/didOpen, didChange, didClose: the cells of a notebook are documents with an order."""

from __future__ import annotations

import logging

from lsprotocol import types

from lsp_server.features.documents import change_document, close_document, open_document
from lsp_server.notebooks import Notebook
from lsp_server.server import UnmaskServer

logger = logging.getLogger(__name__)


def register(server: UnmaskServer) -> None:
    """Add the features."""
    server.feature(types.NOTEBOOK_DOCUMENT_DID_OPEN)(did_open)
    server.feature(types.NOTEBOOK_DOCUMENT_DID_CHANGE)(did_change)
    server.feature(types.NOTEBOOK_DOCUMENT_DID_CLOSE)(did_close)


def did_open(ls: UnmaskServer, params: types.DidOpenNotebookDocumentParams) -> None:
    """Take the notebook and the texts of its cells over."""
    notebook = params.notebook_document
    cells = [cell.document for cell in notebook.cells]
    ls.session.notebooks.open(Notebook(notebook.uri, notebook.version, cells))
    for item in params.cell_text_documents:
        open_document(ls, item)


def did_change(ls: UnmaskServer, params: types.DidChangeNotebookDocumentParams) -> None:
    """Cells that come, go and move, then texts that change: the order in which the protocol means them."""
    if params.notebook_document.uri not in ls.session.notebooks:
        logger.warning("a change of a notebook that is not open")
        return
    notebook = ls.session.notebooks[params.notebook_document.uri]
    notebook.version = params.notebook_document.version
    cells = params.change.cells
    if cells is None:
        return
    if cells.structure is not None:
        array = cells.structure.array
        notebook.splice(array.start, array.delete_count, [cell.document for cell in array.cells or ()])
        for item in cells.structure.did_open or ():
            open_document(ls, item)
        for closed in cells.structure.did_close or ():
            _close_cell(ls, closed.uri)
    for content in cells.text_content or ():
        change_document(ls, content.document.uri, content.document.version, content.changes)


def did_close(ls: UnmaskServer, params: types.DidCloseNotebookDocumentParams) -> None:
    """Forget the notebook and its cells."""
    notebook = ls.session.notebooks.close(params.notebook_document.uri)
    cells = {cell.uri for cell in params.cell_text_documents}
    for uri in cells.union(notebook.cells if notebook is not None else ()):
        _close_cell(ls, uri)


def _close_cell(ls: UnmaskServer, uri: str) -> None:
    close_document(ls, uri)
    ls.session.notebooks.forget_cell(uri)
