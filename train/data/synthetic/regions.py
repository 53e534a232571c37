"""What could be selected around a change, and which of it is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from train.data.synthetic.patches import Span

_WEIGHTS = {"function": 5.0, "class": 2.5, "file": 3.0, "lines": 1.5}
_FILE_WEIGHT_OF_EXCERPTS = 20.0
MAX_NEIGHBOURS = 3


@dataclass(frozen=True, slots=True)
class Region:
    """Whole lines that could be selected. ``kind`` is function, class, file or lines."""

    span: Span
    kind: str


def choose_selection(
    regions: list[Region], accepts: Callable[[Span], bool], generator: Random, prefers_file: bool = False
) -> Span | None:
    """One of the regions, drawn by how usual its kind is; None where none is accepted."""
    allowed = [region for region in regions if accepts(region.span)]
    if not allowed:
        return None
    weights = [
        _FILE_WEIGHT_OF_EXCERPTS if prefers_file and region.kind == "file" else _WEIGHTS[region.kind]
        for region in allowed
    ]
    return generator.choices(allowed, weights)[0].span


def widen(spans: list[Span], changed: Span, generator: Random) -> Span:
    """Whole statements over a change, and up to three neighbours on each side.

    Args:
        spans: the lines of the statements of one block, in order.
        changed: whole lines; between two statements both count as touched.
        generator: decides how many neighbours.
    """
    touched = [number for number, span in enumerate(spans) if span.start <= changed.end and changed.start <= span.end]
    if not touched:
        below = sum(span.end < changed.start for span in spans)
        touched = [number for number in (below - 1, below) if 0 <= number < len(spans)]
    if not touched:
        return changed
    first = max(0, touched[0] - generator.randint(0, MAX_NEIGHBOURS))
    last = min(len(spans) - 1, touched[-1] + generator.randint(0, MAX_NEIGHBOURS))
    return Span(min(changed.start, spans[first].start), max(changed.end, spans[last].end))
