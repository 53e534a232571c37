"""unmask.edit and the decisions about it: unmask.acceptEdit, unmask.rejectEdit."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from lsprotocol import types

from diffusion_core.requests import new_request_id
from lsp_server import capabilities
from lsp_server.edit_messages import EditCommand, Outcome, State
from lsp_server.reporting import invalid_params
from lsp_server.server import UnmaskServer

PROGRESS_CREATE_TIMEOUT_S = 2.0
# JSON name -> type; those not in _REQUIRED may be left out.
_KINDS: dict[str, tuple[type, ...]] = {
    "uri": (str,),
    "range": (dict,),
    "instruction": (str,),
    "version": (int, type(None)),
    "originalSha256": (str,),
    "apply": (bool,),
    "editId": (str,),
}
_REQUIRED = ("uri", "range", "instruction")


def register(server: UnmaskServer) -> None:
    """Add the commands."""
    server.command(capabilities.EDIT)(edit)
    server.command(capabilities.ACCEPT_EDIT)(accept_edit)
    server.command(capabilities.REJECT_EDIT)(reject_edit)


async def edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> dict[str, object]:
    """Make an edit, with a progress that the user can cancel."""
    command = _parse(ls, _argument(params))
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
    argument = _argument(params)
    hunks = argument.get("hunks")
    if hunks is not None and not (isinstance(hunks, list) and all(type(number) is int for number in hunks)):
        raise invalid_params("hunks must be a list of whole numbers")
    return _answer(ls, await ls.editor.accept(_edit_id(argument), hunks))


async def reject_edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> bool:
    """Forget an edit: ``{editId}``; whether there was one."""
    return ls.editor.reject(_edit_id(_argument(params)))


def _answer(ls: UnmaskServer, outcome: Outcome) -> dict[str, object]:
    return outcome.to_answer(ls.protocol._converter.unstructure)


def _argument(params: types.ExecuteCommandParams) -> dict[str, Any]:
    arguments = params.arguments or []
    if len(arguments) != 1 or not isinstance(arguments[0], dict):
        raise invalid_params(f"{params.command} takes one object as its argument")
    return arguments[0]


def _edit_id(argument: dict[str, Any]) -> str:
    edit_id = argument.get("editId")
    if not isinstance(edit_id, str):
        raise invalid_params("editId must be a string")
    return edit_id


def _parse(ls: UnmaskServer, argument: dict[str, Any]) -> EditCommand:
    for name in _REQUIRED:
        if name not in argument:
            raise invalid_params(f"{name} is missing")
    for name, value in argument.items():
        if name not in _KINDS:
            raise invalid_params(f"{name} is not a field of an edit: known are {', '.join(_KINDS)}")
        if not isinstance(value, _KINDS[name]):
            raise invalid_params(f"{name} must be {' or '.join(kind.__name__ for kind in _KINDS[name])}")
    try:
        wanted = ls.protocol._converter.structure(argument["range"], types.Range)
    except Exception:  # cattrs raises groups of anything here
        raise invalid_params("range must be {start: {line, character}, end: {line, character}}") from None
    return EditCommand(
        uri=argument["uri"],
        range=wanted,
        instruction=argument["instruction"],
        edit_id=argument.get("editId") or new_request_id(),
        version=argument.get("version"),
        original_sha256=argument.get("originalSha256", "").lower(),
        apply=argument.get("apply", True),
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
