"""What filters work on: a proposed text, and the place it would go to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a text would be inserted. ``rest`` is what stands right of the cursor, ``following`` the next lines.

    ``may_replace`` is false where the editor dictates the range, so closers at the right cannot be replaced.
    """

    rest: str
    following: tuple[str, ...]
    line_end: str
    single_line: bool
    invoked: bool
    may_replace: bool = True


@dataclass(frozen=True)
class Proposal:
    """A text and how many characters right of the cursor, on the same line, it replaces."""

    text: str
    num_replaced: int = 0


@dataclass(frozen=True)
class Drop:
    """Nothing is shown, for a reason that is counted."""

    reason: str


Filter = Callable[[Proposal, Place], Proposal | Drop]
