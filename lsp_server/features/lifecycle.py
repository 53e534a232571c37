"""initialize, initialized, shutdown, and configuration: the server answers at once, the engine follows."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from lsprotocol import types

from lsp_server.completer import Completer
from lsp_server.context.ignore import path_of_uri
from lsp_server.editor import Editor
from lsp_server.features import code_actions, completion, inline_completion, watched_files
from lsp_server.plain import as_plain
from lsp_server.positions import Encoding
from lsp_server.server import UnmaskServer
from lsp_server.session import ClientFacts, Session
from lsp_server.settings import ROOT
from lsp_server.settings_reader import Problem, concerns_us

logger = logging.getLogger(__name__)

APPLY_TIMEOUT_S = 60.0


def register(server: UnmaskServer) -> None:
    """Add the features."""
    server.feature(types.INITIALIZE)(initialize)
    server.feature(types.INITIALIZED)(initialized)
    server.feature(types.SHUTDOWN)(shutdown)
    server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(did_change_configuration)
    server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)(did_change_workspace_folders)


def initialize(ls: UnmaskServer, params: types.InitializeParams) -> None:
    """Open the session. Which completion requests are announced depends on what the editor knows."""
    facts = ClientFacts.of(params.capabilities)

    def notify(method: str, message: dict[str, object]) -> None:
        ls.protocol.notify(method, message)

    def report_problem(problem: Problem) -> None:
        logger.warning("setting %s cannot be used", problem.name)
        ls.show(problem.message, types.MessageType.Warning)

    session = Session(
        facts=facts,
        encoding=Encoding(ls.workspace.position_encoding or Encoding.UTF16),
        notify=notify,
        report_problem=report_problem,
        connect=ls.connect_engine,
    )
    ls.open_session(session, Completer(session), Editor(session, notify, _applier(ls)))
    session.workspace_roots = lambda: _workspace_roots(ls)
    inline_completion.register(ls)
    code_actions.register(ls)
    if not facts.has_inline_completion:
        completion.register(ls)
    session.stash_settings(params.initialization_options)


def _workspace_roots(ls: UnmaskServer) -> list[Path]:
    """The workspace's folders; what older clients give is one root."""
    folders = [path for folder in ls.workspace.folders.values() if (path := path_of_uri(folder.uri)) is not None]
    root = ls.workspace.root_path
    return folders or ([Path(root)] if root else [])


async def initialized(ls: UnmaskServer, _: types.InitializedParams) -> None:
    """Read the settings and start the engine; nothing was sent before the answer to ``initialize``."""
    session = ls.session
    session.configure(session.stashed_settings)
    is_to_be_asked = session.facts.has_configuration
    if is_to_be_asked and not session.stashed_settings:
        # The engine's address may be among them: no local engine is started before that is known.
        await _pull(ls)
        is_to_be_asked = False
    await session.connect()
    if session.facts.has_configuration_registration:
        registration = types.Registration(
            id="unmask.configuration",
            method=types.WORKSPACE_DID_CHANGE_CONFIGURATION,
            register_options={"section": ROOT},
        )
        await _quietly(ls.client_register_capability_async(types.RegistrationParams([registration])))
    await watched_files.register_with_editor(ls)
    if is_to_be_asked:
        await _pull(ls)


async def did_change_configuration(ls: UnmaskServer, params: types.DidChangeConfigurationParams) -> None:
    """New settings: pushed, or to be fetched."""
    if concerns_us(as_plain(params.settings)):
        await _use(ls, params.settings)
    elif ls.session.facts.has_configuration:
        await _pull(ls)


def did_change_workspace_folders(ls: UnmaskServer, _: types.DidChangeWorkspaceFoldersParams) -> None:
    """Pygls keeps the list of folders; the index follows it."""
    ls.session.change_workspace()


async def shutdown(ls: UnmaskServer, _: Any = None) -> None:
    """Release the engine."""
    await ls.close_session()


async def _pull(ls: UnmaskServer) -> None:
    item = types.ConfigurationItem(section=ROOT)
    answer = await _quietly(ls.workspace_configuration_async(types.ConfigurationParams([item])))
    if answer and answer[0]:
        await _use(ls, answer[0])


async def _use(ls: UnmaskServer, raw: object) -> None:
    ls.session.configure(as_plain(raw))
    await ls.session.connect()


async def _quietly(request: Any) -> Any:
    """The editor's answer, or None if it refuses or does not answer: settings stay as they are."""
    try:
        return await asyncio.wait_for(request, 10)
    except Exception as error:  # whatever the editor answers must not stop the server
        logger.info("the editor did not answer: %s", type(error).__name__)
        return None


def _applier(ls: UnmaskServer) -> Any:
    async def apply(edit: types.WorkspaceEdit) -> tuple[bool, str]:
        params = types.ApplyWorkspaceEditParams(edit=edit, label="Unmask edit")
        try:
            answer = await asyncio.wait_for(ls.workspace_apply_edit_async(params), APPLY_TIMEOUT_S)
        except TimeoutError:
            return False, "it did not answer"
        return answer.applied, answer.failure_reason or ""

    return apply
