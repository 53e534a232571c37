"""From an instruction to an applied edit: check, ask, preview, check again, apply.

Nothing is ever applied to a text other than the one the answer was made for, and an answer that was cut short is
never applied at all.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from lsprotocol.types import Range, WorkspaceEdit

from diffusion_core.errors import InvalidRequest, UnmaskError
from diffusion_core.requests import EditRequest, FinishReason, Result
from lsp_server.completer import path_of
from lsp_server.context.window import text_after, text_before
from lsp_server.edit_messages import EditCommand, Outcome, State
from lsp_server.edit_preview import Preview
from lsp_server.positions import without_lone_surrogates
from lsp_server.postprocess.indentation import restore_indentation
from lsp_server.postprocess.line_ends import line_end_near
from lsp_server.session import Session
from lsp_server.snapshot import Point, Snapshot
from lsp_server.status_board import Notify
from lsp_server.text_edits import (
    Hunk,
    Lines,
    hunks_between,
    replacement_lines,
    selected_text,
    shift_lines,
    text_edits,
    versioned_edit,
    whole_lines,
)

MAX_PENDING = 8

Apply = Callable[[WorkspaceEdit], Awaitable[tuple[bool, str]]]


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """An edit that was made: what it was made from, and its changed places."""

    edit_id: str
    snapshot: Snapshot
    lines: Lines
    hunks: tuple[Hunk, ...]
    result: Result


class Editor:
    """Runs edits of a session, one a document at a time, and keeps those that wait for a decision."""

    def __init__(self, session: Session, notify: Notify, apply: Apply) -> None:
        self._session = session
        self._notify = notify
        self._apply = apply
        self._pending: OrderedDict[str, Proposed] = OrderedDict()
        self._running: set[str] = set()

    async def run(self, command: EditCommand) -> Outcome:
        """Do an edit.

        Raises:
            UnmaskError: it cannot be done; the message is for the user.
            asyncio.CancelledError: it was cancelled; the engine's work too.
        """
        snapshot = self._session.snapshot(command.uri)
        if snapshot is None:
            raise InvalidRequest(f"{command.uri} is not open in the editor")
        if command.version is not None and command.version != snapshot.version:
            return _stale(command, snapshot, f"The document is at version {snapshot.version}, not {command.version}.")
        lines = whole_lines(snapshot, command.range)
        if command.original_sha256 and command.original_sha256 != _sha256(_text_in(snapshot, command.range)):
            return _stale(command, snapshot, "The selected text is not the one that the edit was asked for.")
        if command.uri in self._running:
            raise InvalidRequest("an edit of this document is being made already: wait for it or cancel it")
        request = self._request(command, snapshot, lines)
        self._running.add(command.uri)
        self._session.board.begin_work()
        try:
            result = await self._ask_engine(command, request, snapshot)
        finally:
            self._running.discard(command.uri)
            self._session.board.end_work()
        return await self._finish(command, snapshot, lines, request, result)

    async def accept(self, edit_id: str, chosen: Sequence[int] | None) -> Outcome:
        """Apply an edit that was made with ``apply`` false: all of it, or the hunks with these numbers."""
        proposed = self._pending.get(edit_id)
        if proposed is None:
            raise InvalidRequest(f"no edit {edit_id} waits for a decision")
        if chosen is not None:
            wrong = [number for number in chosen if not 0 <= number < len(proposed.hunks)]
            if wrong:
                raise InvalidRequest(f"hunks {wrong} do not exist: the edit has {len(proposed.hunks)}")
            proposed = replace(proposed, hunks=tuple(proposed.hunks[number] for number in sorted(set(chosen))))
        del self._pending[edit_id]
        return await self._apply_proposed(proposed)

    def reject(self, edit_id: str) -> bool:
        """Forget an edit; whether there was one."""
        return self._pending.pop(edit_id, None) is not None

    def _request(self, command: EditCommand, snapshot: Snapshot, lines: Lines) -> EditRequest:
        settings = self._session.settings.edit
        selection = selected_text(snapshot, lines)
        num_lines = lines.end - lines.first
        if num_lines > settings.max_selection_lines:
            limit = settings.max_selection_lines
            raise InvalidRequest(
                f"the selection has {num_lines} lines: unmask.edit.maxSelectionLines allows {limit}. Select less"
            )
        if len(selection) > settings.max_selection_chars:
            limit = settings.max_selection_chars
            raise InvalidRequest(
                f"the selection has {len(selection)} characters: unmask.edit.maxSelectionChars allows {limit}. "
                "Select less"
            )
        budget = settings.max_context_chars // 2
        below = lines.end < len(snapshot.lines)
        return EditRequest(
            id=command.edit_id,
            selection=without_lone_surrogates(selection),
            instruction=without_lone_surrogates(command.instruction),
            before=without_lone_surrogates(text_before(snapshot, Point(lines.first, 0), budget)),
            after=without_lone_surrogates(text_after(snapshot, Point(lines.end, 0), budget)) if below else "",
            language=snapshot.language,
            path=path_of(snapshot.uri),
            deadline_ms=settings.deadline_ms,
        )

    async def _ask_engine(self, command: EditCommand, request: EditRequest, snapshot: Snapshot) -> Result:
        """Stream the edit with previews; the last frame is always marked as done."""
        link = self._session.engine
        preview = Preview(self._notify, command.edit_id, snapshot, request.selection)
        result: Result | None = None
        try:
            client = await link.wait_ready()
            stream = client.edit(request)
            try:
                async for item in stream:
                    if isinstance(item, Result):
                        result = item
                    else:
                        preview.show(item)
            finally:
                close: Callable[[], Awaitable[None]] | None = getattr(stream, "aclose", None)
                if close is not None:
                    await close()
        except UnmaskError as error:
            link.report(error)
            raise
        finally:
            preview.finish(result.text if result else "")
        if result is None:
            raise UnmaskError("the engine ended the edit without a result")
        return result

    async def _finish(
        self, command: EditCommand, snapshot: Snapshot, lines: Lines, request: EditRequest, result: Result
    ) -> Outcome:
        def outcome(state: State, message: str) -> Outcome:
            return Outcome(
                state=state, message=message, edit_id=command.edit_id, uri=command.uri, version=snapshot.version,
                result=result,
            )  # fmt: skip

        if result.finish_reason is not FinishReason.STOP:
            limit = result.finish_reason.value
            return outcome(State.INCOMPLETE, f"The answer was cut short ({limit}), so nothing was changed.")
        if not result.text.strip():
            return outcome(State.EMPTY, "The model gave no text, so nothing was changed.")
        text = restore_indentation(request.selection, result.text)
        new = replacement_lines(snapshot, lines, text, line_end_near(snapshot, lines.first))
        hunks = hunks_between(snapshot, lines, new)
        if not hunks:
            return outcome(State.EMPTY, "The model left the selection as it is.")
        proposed = Proposed(edit_id=command.edit_id, snapshot=snapshot, lines=lines, hunks=hunks, result=result)
        if command.apply and self._session.facts.has_apply_edit:
            return await self._apply_proposed(proposed)
        self._pending[command.edit_id] = proposed
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        edits = text_edits(snapshot, hunks)
        return replace(outcome(State.READY, f"{len(hunks)} changes are ready."), edits=edits)

    async def _apply_proposed(self, proposed: Proposed) -> Outcome:
        """The second check of version and text, then one versioned edit."""
        now = self._session.snapshot(proposed.snapshot.uri)
        shift = shift_lines(proposed.snapshot, now, proposed.lines) if now is not None else None
        base = now or proposed.snapshot
        outcome = Outcome(
            state=State.STALE, message="The selection was changed meanwhile: run the edit again.",
            edit_id=proposed.edit_id, uri=base.uri, version=base.version, result=proposed.result,
        )  # fmt: skip
        if now is None or shift is None:
            return outcome
        edits = text_edits(now, proposed.hunks, shift)
        applied, reason = await self._apply(versioned_edit(now, edits))
        if not applied:
            message = f"The editor did not apply the edit{f': {reason}' if reason else ''}."
            return replace(outcome, state=State.REJECTED, message=message)
        return replace(outcome, state=State.APPLIED, message=f"{len(edits)} changes applied.", edits=edits)


def _stale(command: EditCommand, snapshot: Snapshot, message: str) -> Outcome:
    return Outcome(
        state=State.STALE, message=message, edit_id=command.edit_id, uri=command.uri, version=snapshot.version
    )


def _text_in(snapshot: Snapshot, wanted: Range) -> str:
    return snapshot.text[snapshot.offset_at(wanted.start) : snapshot.offset_at(wanted.end)]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
