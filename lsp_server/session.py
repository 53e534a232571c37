"""What lives as long as the editor's connection: documents, settings, the engine, and recent suggestions."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lsprotocol.types import ClientCapabilities

from lsp_server.context.collector import ContextCollector
from lsp_server.context.ignore import IgnoreRules
from lsp_server.context.watching import FolderWatch
from lsp_server.debounce import Debounce
from lsp_server.engine_link import Connect, EngineLink
from lsp_server.in_flight import InFlight
from lsp_server.logs import set_level
from lsp_server.next_edit.finder import NextEdits
from lsp_server.notebooks import Notebooks
from lsp_server.plain import as_plain
from lsp_server.positions import Encoding
from lsp_server.settings import Settings
from lsp_server.settings_reader import Problem, client_config, read_settings
from lsp_server.snapshot import Point, Snapshot
from lsp_server.stats.recorder import Recorder
from lsp_server.stats.store import Store, default_path
from lsp_server.status_board import Notify, StatusBoard
from lsp_server.suggestions import SuggestionStore
from lsp_server.syntax import Trees
from lsp_server.text_sync import Document

if TYPE_CHECKING:
    from lsp_server.completer import Suggestion

MAX_SHOWN = 32


@dataclass(frozen=True, kw_only=True)
class ClientFacts:
    """What the editor said it can do."""

    has_inline_completion: bool
    has_apply_edit: bool
    has_configuration: bool
    has_configuration_registration: bool
    has_progress: bool
    has_file_watching: bool
    has_code_action_literals: bool
    has_edit_prompt: bool  # ours: it runs unmask.client.edit, with a prompt and a preview of its own

    @staticmethod
    def of(capabilities: ClientCapabilities) -> ClientFacts:
        """The facts we use."""
        document, workspace, window = capabilities.text_document, capabilities.workspace, capabilities.window
        action = document.code_action if document else None
        watching = workspace.did_change_watched_files if workspace else None
        registration = workspace.did_change_configuration if workspace else None
        return ClientFacts(
            has_inline_completion=bool(document and document.inline_completion is not None),
            has_apply_edit=bool(workspace and workspace.apply_edit),
            has_configuration=bool(workspace and workspace.configuration),
            has_configuration_registration=bool(registration and registration.dynamic_registration),
            has_file_watching=bool(watching and watching.dynamic_registration),
            has_progress=bool(window and window.work_done_progress),
            has_code_action_literals=bool(action and action.code_action_literal_support),
            has_edit_prompt=_own_facts(capabilities.experimental).get("editPrompt") is True,
        )


def _own_facts(experimental: object) -> dict[str, object]:
    """``capabilities.experimental.unmask``, whatever pygls made of the object."""
    plain = as_plain(experimental)
    facts = plain.get("unmask") if isinstance(plain, dict) else None
    return facts if isinstance(facts, dict) else {}


@dataclass(frozen=True)
class Shown:
    """A suggestion that was sent to the editor: ``text`` would stand at ``start`` of the document."""

    uri: str
    start: Point
    text: str
    suggestion: Suggestion | None = None


class Session:
    """Owner of the resources; made at ``initialize``, closed at ``shutdown`` or when the editor goes away."""

    def __init__(
        self,
        *,
        facts: ClientFacts,
        encoding: Encoding,
        notify: Notify,
        report_problem: Callable[[Problem], None],
        connect: Connect,
    ) -> None:
        self.facts = facts
        self.encoding = encoding
        self.settings = Settings()
        self.documents: dict[str, Document] = {}
        self.notebooks = Notebooks()
        self.trees = Trees()
        self.next_edits = NextEdits()
        self.workspace_roots: Callable[[], Sequence[Path]] = tuple
        self.ignore = IgnoreRules()
        self.context = ContextCollector(self.trees, self._snapshots)
        self.watch = FolderWatch(lambda path: self.context.note_file(path.as_uri()))
        self.board = StatusBoard(notify)
        self.stats = Recorder(Store(default_path()), self.snapshot)
        self.board.on_count = self.stats.dropped
        self.engine = EngineLink(self.board, connect)
        self.suggestions = SuggestionStore()
        self.in_flight = InFlight()
        self.debounce = Debounce()
        self.shown: OrderedDict[str, Shown] = OrderedDict()
        self.stashed_settings: object = None
        self._changing_engine = asyncio.Lock()
        self._report_problem = report_problem
        self._known_problems: set[Problem] = set()

    def stash_settings(self, raw: object) -> None:
        """Keep what ``initialize`` brought until the editor may be told about problems in it."""
        self.stashed_settings = raw

    def configure(self, raw: object) -> None:
        """Take over settings; problems are reported once each."""
        self.settings, problems = read_settings(raw)
        for problem in problems:
            self._report(problem)
        ignore = self.settings.ignore
        self.ignore = IgnoreRules(use_gitignore=ignore.use_gitignore, globs=ignore.globs)
        self._configure_context()
        if self.settings.log_level:
            set_level(self.settings.log_level)
        if not self.settings.next_edit.enabled:
            self.next_edits.clear()
        self.stats.set_enabled(self.settings.stats.enabled)
        self.board.set_problems([problem.message for problem in problems])
        self.board.set_off(not self.settings.completion.enabled)

    def _configure_context(self) -> None:
        """The workspace is read and watched only while its declarations are wanted."""
        had_index = self.context.index
        self.context.configure(self.settings.completion.context, self.workspace_roots(), self.ignore)
        if self.context.index is had_index:
            return
        self.watch.close()
        if self.context.index is not None and not self.facts.has_file_watching:
            self.watch.start(self.workspace_roots())

    def change_workspace(self) -> None:
        """Folders were added to the workspace or taken from it."""
        self._configure_context()

    async def connect(self) -> None:
        """Open the engine, or another one when its settings changed."""
        # One after the other, and with the settings of the moment: to close a connection takes a while, and what
        # changes meanwhile has the last word.
        async with self._changing_engine:
            config, problems = client_config(self.settings.engine)
            for problem in problems:
                self._report(problem)
            if config == self.engine.config:
                return
            self.in_flight.cancel()
            self.suggestions.clear()
            await self.engine.restart(config)

    async def restart_engine(self) -> None:
        """Stop the local engine and start another one; open a new connection to a remote one."""
        async with self._changing_engine:
            self.in_flight.cancel()
            self.suggestions.clear()
            await self.engine.stop_local()
            config, _ = client_config(self.settings.engine)
            await self.engine.restart(config)

    def toggle(self) -> bool:
        """Switch suggestions on or off until the settings change; the result is the new state."""
        enabled = not self.settings.completion.enabled
        self.settings = replace(self.settings, completion=replace(self.settings.completion, enabled=enabled))
        if not enabled:
            self.in_flight.cancel()
        self.board.set_off(not enabled)
        return enabled

    def snapshot(self, uri: str) -> Snapshot | None:
        """The present text of an open document or notebook cell."""
        document = self.documents.get(uri)
        return self.notebooks.snapshot(document, self.documents) if document else None

    def _snapshots(self) -> list[Snapshot]:
        """All open documents; a cell of a notebook with the others around it."""
        return [found for uri in self.documents if (found := self.snapshot(uri)) is not None]

    def is_ignored(self, uri: str) -> bool:
        """Whether a document is to be neither completed nor edited nor shown to the model."""
        notebook = self.notebooks.owner_of(uri)  # the rules are about its file, whatever the cells are called
        return self.ignore.is_ignored_uri(notebook.uri if notebook else uri, self.workspace_roots())

    def note_key(self) -> None:
        """A document changed."""
        self.debounce.note_key(time.monotonic() * 1000)

    def remember_shown(self, suggestion_id: str, shown: Shown) -> None:
        """Keep what was sent, so that its acceptance can be understood."""
        self.shown[suggestion_id] = shown
        document = self.documents.get(shown.uri)
        language, model = document.language if document else "", self.board.current.model
        self.stats.offered(suggestion_id, shown.uri, shown.text, language=language, model=model)
        while len(self.shown) > MAX_SHOWN:
            self.shown.popitem(last=False)

    async def aclose(self) -> None:
        """Release everything."""
        self.in_flight.cancel()
        self.watch.close()
        self.context.close()
        await self.stats.aclose()
        await self.engine.aclose()

    def _report(self, problem: Problem) -> None:
        if problem not in self._known_problems:
            self._known_problems.add(problem)
            self._report_problem(problem)
