"""Should we ask the engine at all? Every "no" has a reason that is counted and shown by ``unmask.status``."""

from __future__ import annotations

from enum import StrEnum

from lsp_server.brackets import count_non_closers
from lsp_server.settings import Settings
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import PointKind, Trees, kind_at

MAX_NON_CLOSERS_RIGHT = 8


class Refusal(StrEnum):
    """Why no suggestion is asked for."""

    DISABLED = "disabled"
    LANGUAGE_OFF = "language_off"
    INSIDE_WORD = "inside_word"
    TEXT_RIGHT = "text_right"
    NOTHING_TO_GO_BY = "nothing_to_go_by"
    IN_STRING = "in_string"
    IN_COMMENT = "in_comment"


def refuse(
    settings: Settings, snapshot: Snapshot, point: Point, *, invoked: bool, trees: Trees | None = None
) -> Refusal | None:
    """The reason not to ask, or None. What the user invokes is only refused where suggestions are switched off."""
    if not settings.completion.enabled:
        return Refusal.DISABLED
    if not settings.languages.allow(snapshot.language):
        return Refusal.LANGUAGE_OFF
    if invoked:
        return None
    rest = snapshot.content(point.line)[point.column :]
    if rest[:1].isalnum() or rest[:1] == "_":
        return Refusal.INSIDE_WORD
    if count_non_closers(rest) > MAX_NON_CLOSERS_RIGHT:
        return Refusal.TEXT_RIGHT
    if len(snapshot.lines) == 1 and not snapshot.lines[0].strip():
        return Refusal.NOTHING_TO_GO_BY
    return _refuse_by_syntax(settings, snapshot, point, trees)


def _refuse_by_syntax(settings: Settings, snapshot: Snapshot, point: Point, trees: Trees | None) -> Refusal | None:
    """Strings and comments, for who wants no suggestions there; nobody else pays for a tree."""
    if settings.completion.in_strings and settings.completion.in_comments:
        return None
    kind = kind_at(snapshot, point, trees.of(snapshot) if trees else None)
    if kind is PointKind.STRING and not settings.completion.in_strings:
        return Refusal.IN_STRING
    if kind is PointKind.COMMENT and not settings.completion.in_comments:
        return Refusal.IN_COMMENT
    return None
