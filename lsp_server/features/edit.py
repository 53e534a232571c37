"""unmask.edit, what comes before it (editScope, warmEdit), and the decisions about it (acceptEdit, rejectEdit)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from lsprotocol import types

from diffusion_core.requests import new_request_id
from lsp_server import capabilities
from lsp_server.edit_messages import EditCommand, Outcome, State
from lsp_server.edit_scope import find_scope
from lsp_server.features.arguments import check_fields, one_object, range_in
from lsp_server.reporting import invalid_params
from lsp_server.server import UnmaskServer

PROGRESS_CREATE_TIMEOUT_S = 2.0
# JSON name -> type.
_EDIT_FIELDS: dict[str, tuple[type, ...]] = {
    "uri": (str,),
    "range": (dict,),
    "instruction": (str,),
    "version": (int, type(None)),
    "originalSha256": (str,),
    "apply": (bool,),
    "editId": (str,),
    "refine": (str,),
}
_SCOPE_FIELDS: dict[str, tuple[type, ...]] = {"uri": (str,), "range": (dict,)}
_WARM_FIELDS: dict[str, tuple[type, ...]] = {**_SCOPE_FIELDS, "instruction": (str, type(None))}


def register(server: UnmaskServer) -> None:
    """Add the commands."""
    server.command(capabilities.EDIT)(edit)
    server.command(capabilities.ACCEPT_EDIT)(accept_edit)
    server.command(capabilities.REJECT_EDIT)(reject_edit)
    server.command(capabilities.EDIT_SCOPE)(edit_scope)
    server.command(capabilities.WARM_EDIT)(warm_edit)


async def edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> dict[str, object]:
    """Make an edit, with a progress that the user can cancel."""
    command = _parse(ls, one_object(params))
    work = asyncio.create_task(ls.editor.run(command))
    token = await _begin_progress(ls, params.work_done_token, work)
    try:
        outcome = await work
    except asyncio.CancelledError:
        waiter = asyncio.current_task()
        if waiter is not None and waiter.cancelling():  # $/cancelRequest; else the user's click on the progress
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise
        outcome = Outcome(
            state=State.CANCELLED, message="Cancelled.", edit_id=command.edit_id, uri=command.uri,
            version=command.version or 0,
        )  # fmt: skip
    finally:
        _end_progress(ls, token)
    return _answer(ls, outcome)


async def accept_edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> dict[str, object]:
    """Apply an edit that was made with ``apply`` false: ``{editId, hunks?: [number]}``."""
    argument = one_object(params)
    hunks = argument.get("hunks")
    if hunks is not None and not (isinstance(hunks, list) and all(type(number) is int for number in hunks)):
        raise invalid_params("hunks must be a list of whole numbers")
    return _answer(ls, await ls.editor.accept(_edit_id(argument), hunks))


async def reject_edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> bool:
    """Forget an edit: ``{editId}``; whether there was one."""
    edit_id = _edit_id(one_object(params))
    ls.session.next_edits.rejected(edit_id)
    return ls.editor.reject(edit_id)


async def edit_scope(ls: UnmaskServer, params: types.ExecuteCommandParams) -> dict[str, object]:
    """What an edit of ``{uri, range}`` would be about: its lines, the kind of scope, and a definition's name."""
    argument = one_object(params)
    check_fields(argument, _SCOPE_FIELDS, ("uri", "range"), "an edit scope")
    wanted = range_in(ls, argument["range"])
    snapshot = ls.session.snapshot(argument["uri"])
    if snapshot is None:
        raise invalid_params(f"{argument['uri']} is not open in the editor")
    scope = find_scope(snapshot, wanted, ls.session.trees.of(snapshot))
    return {
        "range": ls.protocol._converter.unstructure(scope.range),
        "kind": scope.kind.value,
        "name": scope.name,
    }


async def warm_edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> None:
    """The user types an instruction: let the engine read what stands before it, ``{uri, range, instruction?}``."""
    argument = one_object(params)
    check_fields(argument, _WARM_FIELDS, ("uri", "range"), "a warm-up of an edit")
    ls.editor.warm(argument["uri"], range_in(ls, argument["range"]), argument.get("instruction") or "")


def _answer(ls: UnmaskServer, outcome: Outcome) -> dict[str, object]:
    ls.session.stats.edited(outcome.state.value)
    return outcome.to_answer(ls.protocol._converter.unstructure)


def _edit_id(argument: dict[str, Any]) -> str:
    edit_id = argument.get("editId")
    if not isinstance(edit_id, str):
        raise invalid_params("editId must be a string")
    return edit_id


def _parse(ls: UnmaskServer, argument: dict[str, Any]) -> EditCommand:
    required = ("uri", "instruction") if argument.get("refine") else ("uri", "range", "instruction")
    check_fields(argument, _EDIT_FIELDS, required, "an edit")
    return EditCommand(
        uri=argument["uri"],
        range=range_in(ls, argument["range"]) if "range" in argument else None,
        instruction=argument["instruction"],
        edit_id=argument.get("editId") or new_request_id(),
        version=argument.get("version"),
        original_sha256=argument.get("originalSha256", "").lower(),
        apply=argument.get("apply", True),
        refine=argument.get("refine", ""),
    )


async def _begin_progress(
    ls: UnmaskServer, token: types.ProgressToken | None, work: asyncio.Task[Outcome]
) -> types.ProgressToken | None:
    """Show a progress under the client's token or one of our own; cancelling it cancels the work."""
    progress = ls.work_done_progress
    if token is None:
        if not ls.session.facts.has_progress:
            return None
        token = f"unmask-edit-{new_request_id()}"
        try:
            await asyncio.wait_for(progress.create_async(token), PROGRESS_CREATE_TIMEOUT_S)
        except asyncio.CancelledError:
            work.cancel()
            raise
        except Exception:  # an editor that refuses the progress gets the edit without one
            return None
    progress.begin(token, types.WorkDoneProgressBegin(title="Unmask edit", cancellable=True))
    progress.tokens[token].add_done_callback(lambda future: work.cancel() if future.cancelled() else None)
    return token


def _end_progress(ls: UnmaskServer, token: types.ProgressToken | None) -> None:
    if token is not None:
        ls.work_done_progress.end(token, types.WorkDoneProgressEnd())
        with contextlib.suppress(KeyError):
            del ls.work_done_progress.tokens[token]
