"""textDocument/codeAction: edits that are offered where the cursor is.

An action carries a command and never an edit: editors apply an action's edit without looking at versions. The command
carries the version instead, and the text is checked when it runs.
"""

from __future__ import annotations

import logging
from typing import Any

from lsprotocol import types

from lsp_server.capabilities import CLIENT_EDIT, CODE_ACTION_KINDS, EDIT
from lsp_server.offers import QUICK_FIX, Offer, Place, offers_at
from lsp_server.reporting import internal_error
from lsp_server.server import UnmaskServer

logger = logging.getLogger(__name__)


def register(server: UnmaskServer) -> None:
    """Add the feature."""
    options = types.CodeActionOptions(code_action_kinds=list(CODE_ACTION_KINDS), resolve_provider=False)
    server.feature(types.TEXT_DOCUMENT_CODE_ACTION, options)(code_action)


async def code_action(
    ls: UnmaskServer, params: types.CodeActionParams
) -> list[types.CodeAction | types.Command] | None:
    """The offers at a place that the editor asked for; none is never an error."""
    snapshot, settings = ls.session.snapshot(params.text_document.uri), ls.session.settings
    if snapshot is None or not settings.edit.code_actions or not settings.languages.allow(snapshot.language):
        return None
    try:
        if ls.session.is_ignored(snapshot.uri):
            return None
        shown = [(found.range.start.line, found.message) for found in params.context.diagnostics]
        ls.session.context.diagnostics.note(snapshot, shown)
        place = Place(snapshot, params.range, ls.session.trees.of(snapshot))
        offers = offers_at(place, list(params.context.diagnostics), settings.edit.max_selection_lines)
    except Exception as error:  # editors ask at every move of the cursor: that must not end in error messages
        internal_error(logger, "code actions", error)
        return None
    has_prompt = ls.session.facts.has_edit_prompt
    return [
        _action(ls, offer, params.text_document.uri, snapshot.version)
        for offer in offers
        if _is_wanted(offer.kind, params.context.only) and (offer.instruction or has_prompt)
    ]


def _is_wanted(kind: str, only: Any) -> bool:
    """Kinds are a tree: who wants ``refactor`` wants ``refactor.rewrite``."""
    names = [getattr(wanted, "value", wanted) for wanted in only or ()]
    return not names or any(not name or kind == name or kind.startswith(f"{name}.") for name in names)


def _action(ls: UnmaskServer, offer: Offer, uri: str, version: int) -> types.CodeAction | types.Command:
    facts = ls.session.facts
    argument = {"uri": uri, "range": ls.protocol._converter.unstructure(offer.range), "version": version}
    if offer.instruction:
        argument["instruction"] = offer.instruction
    name = CLIENT_EDIT if facts.has_edit_prompt else EDIT
    command = types.Command(title=offer.title, command=name, arguments=[argument])
    if not facts.has_code_action_literals:
        return command
    return types.CodeAction(
        title=offer.title,
        kind=types.CodeActionKind.QuickFix if offer.kind == QUICK_FIX else types.CodeActionKind.RefactorRewrite,
        diagnostics=[offer.diagnostic] if offer.diagnostic else None,
        command=command,
    )
