"""The language server: wiring of pygls, session and features. What happens on a request is in ``features/``."""

from __future__ import annotations

import asyncio
import logging
from threading import Event
from typing import Any, BinaryIO

from lsprotocol.types import (
    MessageType,
    NotebookDocumentFilterWithNotebook,
    NotebookDocumentSyncOptions,
    ShowMessageParams,
    TextDocumentSyncKind,
)
from pygls.exceptions import FeatureRequestError, JsonRpcInternalError
from pygls.io_ import StdinAsyncReader, StdoutWriter, run_async
from pygls.lsp.server import LanguageServer
from pygls.protocol import default_converter

from lsp_server.capabilities import ALL_NOTEBOOKS
from lsp_server.completer import Completer
from lsp_server.editor import Editor
from lsp_server.engine_link import Connect, connect_lazily
from lsp_server.protocol import UnmaskProtocol
from lsp_server.reporting import describe_place
from lsp_server.session import Session

logger = logging.getLogger(__name__)


class UnmaskServer(LanguageServer):
    """pygls' server with our session. Everything runs on one event loop; the thread pool only reads stdin."""

    protocol: UnmaskProtocol

    def __init__(self, connect: Connect, version: str) -> None:
        super().__init__(
            "unmask",
            version,
            text_document_sync_kind=TextDocumentSyncKind.Incremental,
            notebook_document_sync=NotebookDocumentSyncOptions(
                notebook_selector=[NotebookDocumentFilterWithNotebook(notebook=ALL_NOTEBOOKS)], save=False
            ),
            protocol_cls=UnmaskProtocol,
            converter_factory=default_converter,
            max_workers=1,
        )
        self.connect_engine = connect
        self.exit_code = 1  # until `exit` comes after `shutdown`
        self._session: Session | None = None
        self._completer: Completer | None = None
        self._editor: Editor | None = None

    def open_session(self, session: Session, completer: Completer, editor: Editor) -> None:
        """Take over what ``initialize`` made."""
        self._session, self._completer, self._editor = session, completer, editor

    @property
    def session(self) -> Session:
        """The session; there is one from ``initialize`` on."""
        assert self._session is not None
        return self._session

    @property
    def completer(self) -> Completer:
        """Makes suggestions."""
        assert self._completer is not None
        return self._completer

    @property
    def editor(self) -> Editor:
        """Makes edits."""
        assert self._editor is not None
        return self._editor

    def stop(self, exit_code: int) -> None:
        """End the message loop after the present message."""
        self.exit_code = exit_code
        if self._stop_event is not None:
            self._stop_event.set()

    async def close_session(self) -> None:
        """Release what the session owns; more than once does no harm."""
        if self._session is not None:
            self.completer.aclose()
            self.editor.stop_warm_up()
            await self._session.aclose()

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log kind and place of an error that no client waits for; its text may quote source code."""
        if source is FeatureRequestError:
            return  # the client has the answer, and execute_command or pygls has logged what there is to log
        data = getattr(error, "data", None)
        place = "".join(data["traceback"]) if isinstance(data, dict) and "traceback" in data else describe_place(error)
        kind = str(error).split(":", 1)[0] if isinstance(error, JsonRpcInternalError) else type(error).__name__
        logger.error("%s: %s\n%s", getattr(source, "__name__", "error"), kind, place.rstrip())

    def show(self, message: str, kind: MessageType) -> None:
        """Tell the user."""
        self.window_show_message(ShowMessageParams(type=kind, message=message))

    def serve(self, stdin: BinaryIO, stdout: BinaryIO) -> int:
        """Speak LSP over two pipes until ``exit`` or until the editor goes away; the result is the exit code."""
        self._stop_event = Event()
        self.protocol.set_writer(StdoutWriter(stdout))
        try:
            asyncio.run(self._serve(stdin, self._stop_event))
        except (BrokenPipeError, KeyboardInterrupt):
            logger.info("the editor went away")
        finally:
            self.shutdown()  # type: ignore[no-untyped-call]
        return self.exit_code

    async def _serve(self, stdin: BinaryIO, stop_event: Event) -> None:
        try:
            await run_async(
                stop_event=stop_event,
                reader=StdinAsyncReader(stdin, self.thread_pool),
                protocol=self.protocol,
                logger=logging.getLogger("pygls"),
                error_handler=self.report_server_error,
            )
        finally:
            await self.close_session()


def create_server(
    connect: Connect = connect_lazily, *, version: str = "0", answered: int | str | None = None
) -> UnmaskServer:
    """A server with all features; the request with the id ``answered`` has its answer already."""
    from lsp_server.features import commands, documents, edit, lifecycle, notebooks, shown, watched_files

    server = UnmaskServer(connect, version)
    server.protocol.answered = answered
    for part in (lifecycle, documents, notebooks, commands, edit, shown, watched_files):
        part.register(server)
    return server
