"""Changes to a text as replaced character ranges: what lies outside of them stays as its author wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters ``start`` to ``end`` (excluded) of a text."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def contains(self, other: Span) -> bool:
        """Whether the other span lies inside this one."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Span) -> bool:
        """Whether the two share a character."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True, order=True)
class Patch:
    """``text`` stands in place of characters ``start`` to ``end``."""

    start: int
    end: int
    text: str

    @property
    def span(self) -> Span:
        """The characters that are replaced."""
        return Span(self.start, self.end)

    @property
    def growth(self) -> int:
        """By how many characters the text becomes longer."""
        return len(self.text) - (self.end - self.start)


def hull(patches: Iterable[Patch]) -> Span:
    """The smallest span that holds all patches; there is at least one."""
    spans = [patch.span for patch in patches]
    return Span(min(span.start for span in spans), max(span.end for span in spans))


def are_compatible(patches: Sequence[Patch]) -> bool:
    """Whether the patches can be applied together in one way only: no overlap, no two insertions at one place."""
    ordered = sorted(patches)
    return all(
        first.end <= second.start and (first.start, first.end) != (second.start, second.end)
        for first, second in pairwise(ordered)
    )


def apply_patches(text: str, patches: Iterable[Patch]) -> str:
    """The text with all patches made; they must be compatible."""
    pieces: list[str] = []
    position = 0
    for patch in sorted(patches):
        pieces += [text[position : patch.start], patch.text]
        position = patch.end
    pieces.append(text[position:])
    return "".join(pieces)
