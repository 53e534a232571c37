"""unmask.nextEdit: the change that the user just made, where it belongs as well. Off unless it is switched on."""

from __future__ import annotations

from lsprotocol import types

from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import new_request_id
from lsp_server import capabilities
from lsp_server.edit_messages import EditCommand
from lsp_server.edit_scope import range_of_lines
from lsp_server.features.arguments import check_fields, one_object
from lsp_server.next_edit.line_change import LineChange, Rename
from lsp_server.server import UnmaskServer
from lsp_server.text_edits import Lines

_FIELDS: dict[str, tuple[type, ...]] = {"uri": (str,), "version": (int, type(None))}


def register(server: UnmaskServer) -> None:
    """Add the command."""
    server.command(capabilities.NEXT_EDIT)(next_edit)


async def next_edit(ls: UnmaskServer, params: types.ExecuteCommandParams) -> dict[str, object] | None:
    """``{uri, version?}``: a ready edit that waits for a decision, with its confidence, line and instruction, or null.

    The place is found by its text. It is offered only if the edit model, told to make the change there, makes just it.
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
        instruction=_instruction(found.change),
        edit_id=new_request_id(),
        version=snapshot.version,
        apply=False,
        is_shown=False,
    )
    try:
        outcome = await ls.editor.run(command)
    except InvalidRequest:  # the file is ignored, or another edit of it is being made
        return None
    text = ls.editor.proposed_text(command.edit_id)
    if text is None or text.rstrip("\n") != found.candidate.text:
        ls.editor.reject(command.edit_id)
        ls.session.next_edits.decline(snapshot.uri, found)  # asking the model again would give the same
        return None
    ls.session.next_edits.offered(command.edit_id, snapshot.uri, found)
    answer = outcome.to_answer(ls.protocol._converter.unstructure)
    return {
        **answer,
        "line": line,
        "confidence": round(found.confidence, 3),
        "kind": found.candidate.features[0],
        "instruction": command.instruction,
    }


def _instruction(change: LineChange) -> str:
    """The change in words that a small model follows; an example of it elsewhere was not enough for one."""
    if isinstance(change, Rename):
        return f"Rename `{change.old}` to `{change.new}`. Change nothing else."
    new = "".join(change.new).strip()
    if change.old:
        what = f"Replace `{''.join(change.old).strip()}` with `{new}`." if new else f"Remove `{''.join(change.old)}`."
    elif change.left and change.right:
        what = f"Insert `{new}` between `{''.join(change.left)}` and `{''.join(change.right)}`."
    else:
        what = f"Insert `{new}` {'after' if change.left else 'before'} `{''.join(change.left or change.right)}`."
    return f"{what} Change nothing else."
