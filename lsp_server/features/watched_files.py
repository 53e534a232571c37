"""didSave and didChangeWatchedFiles: files whose declarations are to be read again."""

from __future__ import annotations

import asyncio
import logging

from lsprotocol import types

from lsp_server.context.watching import watched_glob
from lsp_server.server import UnmaskServer

logger = logging.getLogger(__name__)

REGISTRATION_ID = "unmask.watchedFiles"
_TIMEOUT_S = 10.0


def register(server: UnmaskServer) -> None:
    """Add the features."""
    server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)(did_change_watched_files)
    server.feature(types.TEXT_DOCUMENT_DID_SAVE)(did_save)


def did_change_watched_files(ls: UnmaskServer, params: types.DidChangeWatchedFilesParams) -> None:
    """Files were made, written or deleted outside of the editor."""
    for change in params.changes:
        ls.session.context.note_file(change.uri)


def did_save(ls: UnmaskServer, params: types.DidSaveTextDocumentParams) -> None:
    """A document was written."""
    ls.session.context.note_file(params.text_document.uri)


async def register_with_editor(ls: UnmaskServer) -> None:
    """Ask the editor to watch source files, if it can; it is asked once, whatever the settings say now."""
    if not ls.session.facts.has_file_watching:
        return
    options = types.DidChangeWatchedFilesRegistrationOptions(
        watchers=[types.FileSystemWatcher(glob_pattern=watched_glob())]
    )
    registration = types.Registration(
        id=REGISTRATION_ID, method=types.WORKSPACE_DID_CHANGE_WATCHED_FILES, register_options=options
    )
    try:
        request = ls.client_register_capability_async(types.RegistrationParams([registration]))
        await asyncio.wait_for(request, _TIMEOUT_S)
    except Exception as error:  # files then stay as they were first read
        logger.info("the editor does not watch files: %s", type(error).__name__)
