"""What an editor sends to ask for an edit, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lsprotocol.types import Range, TextEdit

from diffusion_core.requests import Result


class State(StrEnum):
    """What became of an edit."""

    APPLIED = "applied"
    READY = "ready"  # made, for the client to apply or to accept
    STALE = "stale"
    REJECTED = "rejected"
    EMPTY = "empty"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class EditCommand:
    """The argument of ``unmask.edit``. ``version`` None means the present one.

    ``refine`` names an edit that waits for a decision: its text is edited further. Its place is known, so ``range``
    may then be None.
    """

    uri: str
    range: Range | None
    instruction: str
    edit_id: str
    version: int | None = None
    original_sha256: str = ""
    apply: bool = True
    refine: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The answer to an edit command; ``message`` is for the user."""

    state: State
    message: str
    edit_id: str
    uri: str
    version: int
    edits: Sequence[TextEdit] = ()
    result: Result | None = None

    def to_answer(self, unstructure: Callable[[Any], Any]) -> dict[str, object]:
        """The JSON object of the answer."""
        answer: dict[str, object] = {
            "status": self.state.value,
            "message": self.message,
            "editId": self.edit_id,
            "uri": self.uri,
            "version": self.version,
            "edits": [unstructure(edit) for edit in self.edits],
        }
        if self.result is not None:
            answer["model"] = self.result.model
            answer["numForwards"] = self.result.num_forwards
            answer["numTokens"] = self.result.num_tokens
            answer["totalMs"] = round(self.result.timings.total_ms)
            answer["notice"] = self.result.notice
        return answer
