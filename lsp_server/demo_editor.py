"""The demo's editor: one document in a session with a real language server, which runs as a process of its own.

It does what an editor does: it keeps its own text, sends every change, asks for ghost text, and applies the edits
that the server sends, by their version.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from diffusion_core.errors import UnmaskError, Unreachable
from diffusion_core.requests import PreviewFrame
from diffusion_core.version import package_version
from lsp_server.capabilities import EDIT, STATUS
from lsp_server.demo_figures import Figures, read_figures
from lsp_server.edit_preview import PREVIEW_METHOD
from lsp_server.plain import as_plain
from lsp_server.positions import Encoding
from lsp_server.reporting import Kind
from lsp_server.status_board import STATUS_METHOD
from lsp_server.text_sync import Document

READY_TIMEOUT_S = 300.0
UNREACHABLE_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 240.0
EXIT_TIMEOUT_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ghost:
    """An answer to a request for ghost text; ``figures`` is None where the engine was not asked."""

    text: str
    milliseconds: float
    figures: Figures | None
    item: types.InlineCompletionItem | None


class DemoEditor(LanguageClient):
    """See the module docstring. ``offset`` always counts characters from the beginning of the document."""

    def __init__(self, path: Path, text: str, log: Path) -> None:
        super().__init__("unmask-demo", package_version())
        # Code points (utf-32) as positions: an editor may choose, and then a position is a Python index.
        self._document = Document(uri=path.as_uri(), version=1, language="python", text=text, encoding=Encoding.UTF32)
        self._log = log
        self._kind, self._reason, self._message = Kind.BUSY.value, "starting", "Starting the language server."
        self._status_changed = asyncio.Event()
        self._exit_reason = ""
        self._on_frame: Callable[[PreviewFrame], None] = lambda frame: None
        handlers = {
            STATUS_METHOD: self._take_status,
            PREVIEW_METHOD: self._take_frame,
            types.WORKSPACE_APPLY_EDIT: self._apply,
        }
        for method, handler in handlers.items():
            # pygls puts marks on what it is given, which a bound method does not allow.
            self.feature(method)(partial(handler))

    @property
    def text(self) -> str:
        """The document as it is now."""
        return self._document.snapshot().text

    async def begin(self, settings: Mapping[str, object]) -> None:
        """The handshake, and the document is opened."""
        parameters = types.InitializeParams(
            process_id=os.getpid(), capabilities=_capabilities(), initialization_options=settings
        )
        await self._answer(self.initialize_async(parameters))
        self.initialized(types.InitializedParams())
        item = types.TextDocumentItem(
            uri=self._document.uri, language_id=self._document.language, version=1, text=self.text
        )
        self.text_document_did_open(types.DidOpenTextDocumentParams(item))

    async def wait_ready(self, tell: Callable[[str], None]) -> None:
        """Until the engine can answer; ``tell`` hears what the status says meanwhile.

        Raises:
            UnmaskError: the engine cannot be had; the message is the status's.
        """
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while self._reason != "ready":
                    if self._exit_reason:
                        raise Unreachable(self._exit_reason)
                    await self._wait_for_change(tell)
        except TimeoutError:
            raise Unreachable(f"the engine is not ready after {READY_TIMEOUT_S:.0f} s: {self._message}") from None

    async def _wait_for_change(self, tell: Callable[[str], None]) -> None:
        is_error = self._kind == Kind.ERROR.value
        if is_error and self._reason != "unreachable":
            raise UnmaskError(self._message)
        tell(self._message)
        self._status_changed.clear()
        try:
            # The server tries again and again to reach its engine; a mistyped address should not take minutes.
            await asyncio.wait_for(self._status_changed.wait(), UNREACHABLE_TIMEOUT_S if is_error else None)
        except TimeoutError:
            raise Unreachable(self._message) from None

    def replace(self, start: int, end: int, text: str) -> None:
        """Change the document, and say so to the server."""
        snapshot = self._document.snapshot()
        span = types.Range(start=snapshot.position_from_offset(start), end=snapshot.position_from_offset(end))
        self._change([types.TextDocumentContentChangePartial(range=span, text=text)])

    async def ask_for_ghost_text(self, offset: int, *, invoked: bool = False) -> Ghost:
        """Ghost text for a place; an empty one if the server has none."""
        kind = types.InlineCompletionTriggerKind.Invoked if invoked else types.InlineCompletionTriggerKind.Automatic
        parameters = types.InlineCompletionParams(
            text_document=types.TextDocumentIdentifier(self._document.uri),
            position=self._document.snapshot().position_from_offset(offset),
            context=types.InlineCompletionContext(trigger_kind=kind),
        )
        num_known = len(read_figures(self._log))
        begin = time.monotonic()
        answer = await self._answer(self.text_document_inline_completion_async(parameters))
        milliseconds = (time.monotonic() - begin) * 1000
        items = answer.items if isinstance(answer, types.InlineCompletionList) else answer
        item = next(iter(items or ()), None)
        figures = read_figures(self._log)[num_known:]
        return Ghost(
            text=str(item.insert_text) if item else "",
            milliseconds=milliseconds,
            figures=figures[-1] if figures else None,
            item=item,
        )

    async def accept(self, item: types.InlineCompletionItem) -> int:
        """What Tab does: put the text in, and run the item's command. The result is the offset after the text."""
        assert item.range is not None and item.command is not None  # our server always gives both
        snapshot = self._document.snapshot()
        start = snapshot.offset_at(item.range.start)
        self.replace(start, snapshot.offset_at(item.range.end), str(item.insert_text))
        await self._execute(item.command.command, *(item.command.arguments or ()))
        return start + len(str(item.insert_text))

    async def edit(self, instruction: str, on_frame: Callable[[PreviewFrame], None]) -> dict[str, Any]:
        """Run the edit command on the whole document; the result is its answer."""
        snapshot = self._document.snapshot()
        end = snapshot.position_at(snapshot.end)
        span = {"start": {"line": 0, "character": 0}, "end": {"line": end.line, "character": end.character}}
        argument = {"uri": snapshot.uri, "version": snapshot.version, "range": span, "instruction": instruction}
        self._on_frame = on_frame
        return dict(await self._execute(EDIT, argument))

    async def why_nothing(self) -> str:
        """The reason for the last request that was answered with nothing."""
        return str((await self._execute(STATUS))["lastReason"])

    async def end(self) -> None:
        """Shutdown and exit, as LSP has it; a server that does not go is killed."""
        server = self._server
        if server is None:
            return
        if server.returncode is None:
            with contextlib.suppress(UnmaskError, TimeoutError):
                await asyncio.wait_for(self._answer(self.shutdown_async(None)), EXIT_TIMEOUT_S)
                self.exit(None)
                await asyncio.wait_for(server.wait(), EXIT_TIMEOUT_S)
        if server.returncode is None:
            server.kill()
        await self.stop()  # type: ignore[no-untyped-call]

    async def server_exit(self, server: Process) -> None:
        """Keep the last thing that the server said, for the error message."""
        said = (await server.stderr.read()).decode("utf-8", "replace").strip() if server.stderr else ""
        last = f": {said.splitlines()[-1]}" if said else ""
        self._exit_reason = f"the language server ended with exit code {server.returncode}{last}"
        self._status_changed.set()

    def _take_status(self, params: Any) -> None:
        self._kind, self._reason, self._message = params.kind, params.reason, params.message
        self._status_changed.set()

    def _take_frame(self, params: Any) -> None:
        if not params.done:
            self._on_frame(PreviewFrame(id=params.editId, settled=params.settled, unsettled=params.unsettled))

    def _apply(self, params: types.ApplyWorkspaceEditParams) -> types.ApplyWorkspaceEditResult:
        for change in params.edit.document_changes or ():
            if not isinstance(change, types.TextDocumentEdit) or change.text_document.uri != self._document.uri:
                return types.ApplyWorkspaceEditResult(applied=False, failure_reason="only the open document is edited")
            if change.text_document.version != self._document.version:
                return types.ApplyWorkspaceEditResult(applied=False, failure_reason="the document has changed")
            edits = [edit for edit in change.edits if isinstance(edit, types.TextEdit)]
            # All ranges mean the text before the edit: the last one first, so that none moves another.
            edits.sort(key=lambda edit: (edit.range.start.line, edit.range.start.character), reverse=True)
            self._change(
                [types.TextDocumentContentChangePartial(range=edit.range, text=edit.new_text) for edit in edits]
            )
        return types.ApplyWorkspaceEditResult(applied=True)

    def _change(self, changes: list[types.TextDocumentContentChangePartial]) -> None:
        version = self._document.version + 1
        self._document.apply(changes, version)
        identifier = types.VersionedTextDocumentIdentifier(version=version, uri=self._document.uri)
        self.text_document_did_change(types.DidChangeTextDocumentParams(identifier, changes))

    async def _execute(self, command: str, *arguments: Any) -> Any:
        parameters = types.ExecuteCommandParams(command=command, arguments=[as_plain(item) for item in arguments])
        return as_plain(await self._answer(self.workspace_execute_command_async(parameters)))

    async def _answer(self, answer: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(answer, ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise Unreachable(f"the language server did not answer within {ANSWER_TIMEOUT_S:.0f} s") from None
        except JsonRpcException as error:
            raise UnmaskError(error.message) from None
        except RuntimeError as error:  # pygls' way of saying that the server is gone
            raise Unreachable(self._exit_reason or str(error)) from None


def _capabilities() -> types.ClientCapabilities:
    return types.ClientCapabilities(
        text_document=types.TextDocumentClientCapabilities(
            inline_completion=types.InlineCompletionClientCapabilities(dynamic_registration=False)
        ),
        workspace=types.WorkspaceClientCapabilities(
            apply_edit=True, workspace_edit=types.WorkspaceEditClientCapabilities(document_changes=True)
        ),
        general=types.GeneralClientCapabilities(position_encodings=[types.PositionEncodingKind.Utf32]),
    )


@asynccontextmanager
async def open_editor(path: Path, text: str, settings: Mapping[str, object]) -> AsyncIterator[DemoEditor]:
    """An editor that has opened the file at ``path`` with ``text``; the server's log comes to lie beside it."""
    logging.getLogger("pygls").setLevel(logging.CRITICAL)  # failures reach the user as error messages
    log = path.with_suffix(".log")
    editor = DemoEditor(path, text, log)
    try:
        await editor.start_io(
            sys.executable, "-P", "-m", "lsp_server", "--log-level", "info", "--log-file", str(log),
            start_new_session=True,  # Ctrl-C is for the demo, which then says goodbye to the server
        )  # fmt: skip
        await editor.begin(settings)
        yield editor
    finally:
        await editor.end()
