"""An edit before and after the engine worked on it: what it is about, what is asked, what was proposed."""

from __future__ import annotations

from dataclasses import dataclass

from lsprotocol.types import Range

from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import EditRequest, Result
from lsp_server.completer import path_of
from lsp_server.context.window import text_after, text_before
from lsp_server.insertion import indentation_pattern
from lsp_server.positions import without_lone_surrogates
from lsp_server.settings import EditSettings
from lsp_server.snapshot import Point, Snapshot
from lsp_server.text_edits import Hunk, Lines, selected_text, whole_lines


@dataclass(frozen=True, kw_only=True)
class Task:
    """What an edit works on: ``selection`` is to be rewritten, and the answer replaces ``lines`` of ``snapshot``.

    The two are the same text, except for an edit that refines another one: then ``selection`` is the other's answer.
    """

    snapshot: Snapshot
    lines: Lines
    selection: str

    @staticmethod
    def of_range(snapshot: Snapshot, wanted: Range) -> Task:
        """An edit of the whole lines of a range."""
        lines = whole_lines(snapshot, wanted)
        return Task(snapshot=snapshot, lines=lines, selection=selected_text(snapshot, lines))

    @property
    def pattern(self) -> str:
        """A text in the indentation that the answer should have."""
        return indentation_pattern(self.snapshot, self.lines, self.selection)


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """An edit that was made: what it was made from, its whole text, and its changed places."""

    edit_id: str
    snapshot: Snapshot
    lines: Lines
    text: str
    hunks: tuple[Hunk, ...]
    result: Result


def make_edit_request(settings: EditSettings, task: Task, instruction: str, edit_id: str) -> EditRequest:
    """The request to the engine: the selection, and the text around its place.

    Raises:
        InvalidRequest: the selection is larger than the settings allow, or the instruction is empty or too long.
    """
    _check_size(settings, task.selection)
    snapshot, lines = task.snapshot, task.lines
    budget = settings.max_context_chars // 2
    below = lines.end < len(snapshot.lines)
    return EditRequest(
        id=edit_id,
        selection=without_lone_surrogates(task.selection),
        instruction=without_lone_surrogates(instruction),
        before=without_lone_surrogates(text_before(snapshot, Point(lines.first, 0), budget)),
        after=without_lone_surrogates(text_after(snapshot, Point(lines.end, 0), budget)) if below else "",
        language=snapshot.language,
        path=path_of(snapshot.uri),
        deadline_ms=settings.deadline_ms,
    )


def _check_size(settings: EditSettings, selection: str) -> None:
    num_lines = selection.count("\n") + (not selection.endswith("\n"))
    if num_lines > settings.max_selection_lines:
        limit = settings.max_selection_lines
        raise InvalidRequest(
            f"the selection has {num_lines} lines: unmask.edit.maxSelectionLines allows {limit}. Select less"
        )
    if len(selection) > settings.max_selection_chars:
        limit = settings.max_selection_chars
        raise InvalidRequest(
            f"the selection has {len(selection)} characters: unmask.edit.maxSelectionChars allows {limit}. Select less"
        )
