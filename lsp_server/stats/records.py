"""What is kept: one row for each suggestion, and counts by hour of everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LATENCY = "latency"
DROP = "drop"
EDIT = "edit"


@dataclass(kw_only=True)
class Fate:
    """What became of a suggestion. ``id`` is random; times are seconds since 1970; lengths are in characters.

    ``is_shown`` None: the editor does not tell. ``kept_soon`` and ``kept_late`` are the shares of an accepted text
    that still stood there after half a minute and after five minutes; None while that is not known.
    """

    id: str
    time: float
    language: str
    model: str
    num_chars: int
    num_lines: int
    is_shown: bool | None = None
    is_dismissed: bool = False
    is_accepted: bool = False
    num_accepted: int = 0
    kept_soon: float | None = None
    kept_late: float | None = None


class Count(NamedTuple):
    """What is counted, in which hour (since 1970).

    ``kind`` LATENCY: ``name`` is task and phase (``complete.prefill``), ``bucket`` that of the duration.
    ``kind`` DROP: ``name`` is the reason why nothing was shown. ``kind`` EDIT: ``name`` is what became of an edit.
    """

    hour: int
    kind: str
    name: str
    bucket: int = 0
