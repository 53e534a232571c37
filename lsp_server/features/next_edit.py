"""unmask.nextEdit: the change that the user just made, where it belongs as well. Off unless it is switched on."""

from __future__ import annotations

from lsprotocol import types

from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import new_request_id
from lsp_server import capabilities
from lsp_server.edit_messages import EditCommand
from lsp_server.edit_scope import range_of_lines
from lsp_server.features.arguments import check_fields, one_object
from lsp_server.next_edit.finder import NextEdit
from lsp_server.server import UnmaskServer
from lsp_server.text_edits import Lines

_FIELDS: dict[str, tuple[type, ...]] = {"uri": (str,), "version": (int, type(None))}


def register(server: UnmaskServer) -> None:
    """Add the command."""
    server.command(capabilities.NEXT_EDIT)(next_edit)


async def next_edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> dict[str, object] | None:
    """``{uri, version?}``: a ready edit that waits for a decision, with its confidence and line; null if there is none.

    The place is found by its text; what it becomes is the edit model's answer.
    """
    argument = one_object(params)
    check_fields(argument, _FIELDS, ("uri",), "a next edit")
    settings, snapshot = ls.session.settings.next_edit, ls.session.snapshot(argument["uri"])
    if snapshot is None or not settings.enabled or argument.get("version") not in (None, snapshot.version):
        return None
    found = ls.session.next_edits.best(snapshot, settings.min_confidence / 100)
    if found is None:
        return None
    line = found.candidate.line
    command = EditCommand(
        uri=snapshot.uri,
        range=range_of_lines(snapshot, Lines(line, line + 1)),
        instruction=_instruction(found),
        edit_id=new_request_id(),
        version=snapshot.version,
        apply=False,
        is_shown=False,
    )
    try:
        outcome = await ls.editor.run(command)
    except InvalidRequest:  # the file is ignored, or another edit of it is being made
        return None
    answer = outcome.to_answer(ls.protocol._converter.unstructure)
    return {**answer, "line": line, "confidence": round(found.confidence, 3), "kind": found.candidate.features[0]}


def _instruction(found: NextEdit) -> str:
    before, after = found.example
    return f"Elsewhere in this file\n{before}\nbecame\n{after}\nMake the same change to this code. Change nothing else."
