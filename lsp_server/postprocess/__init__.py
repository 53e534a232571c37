"""From the engine's text to what is shown: filters in one fixed order, each in its own file."""

from __future__ import annotations

from lsp_server.postprocess.closers import replace_closers
from lsp_server.postprocess.line_ends import line_end_near, use_line_ends
from lsp_server.postprocess.proposal import Drop, Filter, Place, Proposal
from lsp_server.postprocess.single_line import keep_one_line
from lsp_server.postprocess.suffix_overlap import cut_suffix_overlap
from lsp_server.postprocess.trailing_space import trim_trailing_space
from lsp_server.postprocess.worthless import drop_worthless
from lsp_server.snapshot import Point, Snapshot

__all__ = ["Drop", "Place", "Proposal", "place_at", "refine"]

FILTERS: tuple[Filter, ...] = (
    keep_one_line,
    cut_suffix_overlap,
    replace_closers,
    trim_trailing_space,
    drop_worthless,
    use_line_ends,
)
MAX_FOLLOWING = 40


def place_at(snapshot: Snapshot, point: Point, *, single_line: bool, invoked: bool, may_replace: bool = True) -> Place:
    """The place ``point`` is in its document."""
    last = min(len(snapshot.lines), point.line + 1 + MAX_FOLLOWING)
    return Place(
        rest=snapshot.content(point.line)[point.column :],
        following=tuple(snapshot.content(line) for line in range(point.line + 1, last)),
        line_end=line_end_near(snapshot, point.line),
        single_line=single_line,
        invoked=invoked,
        may_replace=may_replace,
    )


def refine(text: str, place: Place) -> Proposal | Drop:
    """Run all filters over an answer; the first drop ends it."""
    proposal: Proposal | Drop = Proposal(text)
    for apply in FILTERS:
        if isinstance(proposal, Drop):
            break
        proposal = apply(proposal, place)
    return proposal
