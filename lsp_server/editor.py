"""From an instruction to an applied edit: check, ask, preview, check again, apply.

Nothing is ever applied to a text other than the one the answer was made for, and an answer that was cut short is
never applied at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from lsprotocol.types import Range, WorkspaceEdit

from diffusion_core.errors import InvalidRequest, UnmaskError
from diffusion_core.requests import (
    UNKNOWN_INSTRUCTION,
    EditRequest,
    EngineClient,
    FinishReason,
    Result,
    WarmRequest,
    new_request_id,
)
from lsp_server.edit_messages import EditCommand, Outcome, State
from lsp_server.edit_preview import Preview
from lsp_server.edit_task import Proposed, Task, make_edit_request
from lsp_server.postprocess.indentation import restore_indentation
from lsp_server.postprocess.line_ends import line_end_near
from lsp_server.session import Session
from lsp_server.snapshot import Snapshot
from lsp_server.status_board import Notify
from lsp_server.text_edits import (
    Lines,
    hunks_between,
    replacement_lines,
    shift_lines,
    text_edits,
    versioned_edit,
)

logger = logging.getLogger(__name__)

MAX_PENDING = 8

Apply = Callable[[WorkspaceEdit], Awaitable[tuple[bool, str]]]


class Editor:
    """Runs edits of a session, one a document at a time, and keeps those that wait for a decision."""

    def __init__(self, session: Session, notify: Notify, apply: Apply) -> None:
        self._session = session
        self._notify = notify
        self._apply = apply
        self._pending: OrderedDict[str, Proposed] = OrderedDict()
        self._running: set[str] = set()
        self._warm_up: asyncio.Task[None] | None = None

    async def run(self, command: EditCommand) -> Outcome:
        """Do an edit.

        Raises:
            UnmaskError: it cannot be done; the message is for the user.
            asyncio.CancelledError: it was cancelled; the engine's work too.
        """
        snapshot = self._session.snapshot(command.uri)
        if snapshot is None:
            raise InvalidRequest(f"{command.uri} is not open in the editor")
        if self._session.is_ignored(command.uri):
            raise InvalidRequest(f"{command.uri} is ignored (.gitignore, .unmaskignore or unmask.ignore): not edited")
        if command.version is not None and command.version != snapshot.version:
            return _stale(command, snapshot, f"The document is at version {snapshot.version}, not {command.version}.")
        if command.range is not None and command.original_sha256:
            text = snapshot.text[snapshot.offset_at(command.range.start) : snapshot.offset_at(command.range.end)]
            if command.original_sha256 != _sha256(text):
                return _stale(command, snapshot, "The selected text is not the one that the edit was asked for.")
        task = self._task(command, snapshot)
        if task is None:
            return _stale(command, snapshot, "The text of the edit was changed meanwhile: run the edit again.")
        if command.uri in self._running:
            raise InvalidRequest("an edit of this document is being made already: wait for it or cancel it")
        request = self._request(task, command.instruction, command.edit_id)
        self._running.add(command.uri)
        self._session.board.begin_work()
        try:
            result = await self._ask_engine(command, request, task)
        finally:
            self._running.discard(command.uri)
            self._session.board.end_work()
        return await self._finish(command, task, result)

    def warm(self, uri: str, wanted: Range, instruction: str) -> None:
        """Let the engine read the prompt of an edit that is expected; the newest warm-up replaces an older one.

        Nothing is said if it cannot be done: the edit itself will say why.
        """
        client, snapshot = self._session.engine.client, self._session.snapshot(uri)
        if client is None or snapshot is None:
            return
        task = Task.of_range(snapshot, wanted)
        known = instruction if instruction.strip() else UNKNOWN_INSTRUCTION
        try:
            request = self._request(task, known, new_request_id())
        except InvalidRequest:
            return
        self.stop_warm_up()
        self._warm_up = asyncio.create_task(_warm(client, request))

    def stop_warm_up(self) -> None:
        """What was expected is here, or will not come. The engine keeps what it has computed."""
        if self._warm_up is not None:
            self._warm_up.cancel()
            self._warm_up = None

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
        if not proposed.hunks:
            return Outcome(
                state=State.EMPTY, message="No change was chosen.", edit_id=edit_id, uri=proposed.snapshot.uri,
                version=proposed.snapshot.version, result=proposed.result,
            )  # fmt: skip
        return await self._apply_proposed(proposed)

    def reject(self, edit_id: str) -> bool:
        """Forget an edit; whether there was one."""
        return self._pending.pop(edit_id, None) is not None

    def _task(self, command: EditCommand, snapshot: Snapshot) -> Task | None:
        """What the edit works on; None if it is to refine an edit whose place was changed meanwhile."""
        if not command.refine:
            if command.range is None:
                raise InvalidRequest("an edit that refines no other one needs a range")
            return Task.of_range(snapshot, command.range)
        earlier = self._pending.get(command.refine)
        if earlier is None:
            raise InvalidRequest(f"no edit {command.refine} waits for a decision")
        if earlier.snapshot.uri != command.uri:
            raise InvalidRequest(f"edit {command.refine} is one of {earlier.snapshot.uri}, not of {command.uri}")
        shift = shift_lines(earlier.snapshot, snapshot, earlier.lines)
        if shift is None:
            return None
        lines = Lines(earlier.lines.first + shift, earlier.lines.end + shift)
        return Task(snapshot=snapshot, lines=lines, selection=earlier.text)

    def _request(self, task: Task, instruction: str, edit_id: str) -> EditRequest:
        return make_edit_request(self._session.settings.edit, task, instruction, edit_id)

    async def _ask_engine(self, command: EditCommand, request: EditRequest, task: Task) -> Result:
        """Stream the edit with previews; the last frame is always marked as done."""
        link = self._session.engine
        preview = Preview(self._notify, command.edit_id, task.snapshot, task.pattern)
        result: Result | None = None
        begin = time.monotonic()
        try:
            client = await link.wait_ready()
            self.stop_warm_up()
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
        self._session.stats.answered("edit", result.timings, 1000 * (time.monotonic() - begin))
        return result

    async def _finish(self, command: EditCommand, task: Task, result: Result) -> Outcome:
        def outcome(state: State, message: str) -> Outcome:
            return Outcome(
                state=state, message=message, edit_id=command.edit_id, uri=command.uri, version=task.snapshot.version,
                result=result,
            )  # fmt: skip

        if result.finish_reason is not FinishReason.STOP:
            limit = result.finish_reason.value
            return outcome(State.INCOMPLETE, f"The answer was cut short ({limit}), so nothing was changed.")
        if not result.text.strip():
            return outcome(State.EMPTY, "The model gave no text, so nothing was changed.")
        text = restore_indentation(task.pattern, result.text)
        if command.refine and text == task.selection:
            return outcome(State.EMPTY, "The model left the proposed text as it is.")
        new = replacement_lines(task.snapshot, task.lines, text, line_end_near(task.snapshot, task.lines.first))
        hunks = hunks_between(task.snapshot, task.lines, new)
        if not hunks:
            return outcome(State.EMPTY, "The model left the selection as it is.")
        proposed = Proposed(
            edit_id=command.edit_id, snapshot=task.snapshot, lines=task.lines, text=text, hunks=hunks, result=result
        )
        self._pending.pop(command.refine, None)
        if command.apply and self._session.facts.has_apply_edit:
            return await self._apply_proposed(proposed)
        self._pending[command.edit_id] = proposed
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        edits = text_edits(task.snapshot, hunks)
        return replace(outcome(State.READY, _count(hunks, "ready")), edits=edits)

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
        return replace(
            outcome,
            state=State.APPLIED,
            message=_count(edits, "applied"),
            edits=edits,
        )


def _stale(command: EditCommand, snapshot: Snapshot, message: str) -> Outcome:
    return Outcome(
        state=State.STALE, message=message, edit_id=command.edit_id, uri=command.uri, version=snapshot.version
    )


async def _warm(client: EngineClient, request: EditRequest) -> None:
    try:
        await client.warm(WarmRequest(edit=request))
    except UnmaskError as error:
        logger.info("warm-up %s: %s", request.id, type(error).__name__)


def _count(changes: Sequence[object], what: str) -> str:
    return f"1 change {what}." if len(changes) == 1 else f"{len(changes)} changes {what}."


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
