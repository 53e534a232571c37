"""What becomes of a suggestion in the editor: shown, taken in part, dismissed. Editors may send none of these.

A full acceptance is the item's own command, ``unmask.accepted``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lsp_server.plain import as_plain
from lsp_server.positions import Encoding, column_at
from lsp_server.server import UnmaskServer
from lsp_server.session import Shown

DID_SHOW = "$/unmask/didShow"
DID_PARTIALLY_ACCEPT = "$/unmask/didPartiallyAccept"
DID_DISMISS = "$/unmask/didDismiss"


def register(server: UnmaskServer) -> None:
    """Add the notifications."""
    server.feature(DID_SHOW)(did_show)
    server.feature(DID_PARTIALLY_ACCEPT)(did_partially_accept)
    server.feature(DID_DISMISS)(did_dismiss)


def did_show(ls: UnmaskServer, params: Any) -> None:
    """``{id}``: an idle engine may read what follows an acceptance."""
    plain = as_plain(params)
    shown = _find(ls, plain)
    if shown is not None:
        ls.session.stats.shown(plain["id"])
    if shown is not None and shown.suggestion is not None:
        ls.completer.expect_acceptance(shown.suggestion, delay_s=0)


def did_partially_accept(ls: UnmaskServer, params: Any) -> None:
    """``{id, acceptedLength}``: the rest is kept for the place behind the accepted part, so no engine is asked.

    The length counts UTF-16 units from the beginning of the text, whatever the encoding of positions.
    """
    plain = as_plain(params)
    shown = _find(ls, plain)
    length = plain.get("acceptedLength") if isinstance(plain, dict) else None
    if shown is None or shown.suggestion is None or type(length) is not int or length <= 0:
        return
    ls.session.stats.partly_accepted(plain["id"], length)
    query = shown.suggestion.query
    count = column_at(shown.text, length, Encoding.UTF16)
    rest = _plain_ends(shown.text[count:])
    if query is not None and rest:
        accepted = _plain_ends(shown.text[:count])
        ls.session.suggestions.add(replace(query, prefix=query.prefix + accepted), rest)


def did_dismiss(ls: UnmaskServer, params: Any) -> None:
    """``{id}``: nothing of it will be accepted."""
    plain = as_plain(params)
    if _find(ls, plain) is not None:
        ls.session.stats.dismissed(plain["id"])
        ls.completer.note_dismissal()


def _find(ls: UnmaskServer, plain: Any) -> Shown | None:
    suggestion_id = plain.get("id") if isinstance(plain, dict) else None
    return ls.session.shown.get(suggestion_id) if isinstance(suggestion_id, str) else None


def _plain_ends(text: str) -> str:
    r"""Line ends as the engine and the store have them: ``\n``."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
