"""textDocument/inlineCompletion: ghost text."""

from __future__ import annotations

import logging

from lsprotocol import types

from diffusion_core.requests import new_request_id
from lsp_server.capabilities import ACCEPTED
from lsp_server.completer import Ask, Nothing, Selected, Suggestion
from lsp_server.reporting import internal_error
from lsp_server.server import UnmaskServer
from lsp_server.session import Shown
from lsp_server.snapshot import Point, Snapshot

logger = logging.getLogger(__name__)


def register(server: UnmaskServer) -> None:
    """Add the feature; without options pygls does not announce it and editors never ask."""
    server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(inline_completion)


async def inline_completion(ls: UnmaskServer, params: types.InlineCompletionParams) -> types.InlineCompletionList:
    """The items, the best first; at most one while the user types. None is never an error."""
    is_invoked = params.context.trigger_kind is types.InlineCompletionTriggerKind.Invoked
    suggestions = await suggest(
        ls,
        params.text_document.uri,
        params.position,
        invoked=is_invoked,
        selected=params.context.selected_completion_info,
    )
    items = [
        types.InlineCompletionItem(
            insert_text=suggestion.text,
            range=suggestion.snapshot.range_between(suggestion.start, suggestion.end),
            command=accepted_command(ls, suggestion),
        )
        for suggestion in suggestions
    ]
    if suggestions:
        ls.completer.expect_acceptance(suggestions[0])
    return types.InlineCompletionList(items=items)


async def suggest(
    ls: UnmaskServer,
    uri: str,
    position: types.Position,
    *,
    invoked: bool,
    selected: types.SelectedCompletionInfo | None = None,
) -> list[Suggestion]:
    """Suggestions for a position of an open document. The snapshot is taken before anything is awaited."""
    snapshot = ls.session.snapshot(uri)
    if snapshot is None:
        ls.session.board.count("not_open")
        return []
    point = snapshot.point_at(position)
    ask = Ask(snapshot, point, invoked, _selected(snapshot, selected) if selected else None)
    try:
        outcome = await ls.completer.suggest(ask)
    except Exception as error:  # typing must never be answered with an error message
        internal_error(logger, "suggestion", error)
        ls.session.board.count("internal_error")
        return []
    return [] if isinstance(outcome, Nothing) else outcome


def accepted_command(ls: UnmaskServer, suggestion: Suggestion) -> types.Command:
    """The command that the editor runs when the suggestion was accepted."""
    suggestion_id = new_request_id()
    shown = Shown(suggestion.snapshot.uri, suggestion.start, suggestion.text, suggestion)
    ls.session.remember_shown(suggestion_id, shown)
    return types.Command(title="Suggestion accepted", command=ACCEPTED, arguments=[{"id": suggestion_id}])


def end_of(start: Point, text: str) -> Point:
    """Where a text that was inserted at ``start`` ends."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return Point(start.line + len(lines) - 1, len(lines[-1]) + (start.column if len(lines) == 1 else 0))


def _selected(snapshot: Snapshot, info: types.SelectedCompletionInfo) -> Selected:
    return Selected(snapshot.point_at(info.range.start), snapshot.point_at(info.range.end), info.text)
