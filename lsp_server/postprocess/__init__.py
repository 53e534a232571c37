"""From the engine's text to what is shown: filters in one fixed order, each in its own file."""

from __future__ import annotations

from lsp_server.postprocess.closers import replace_closers
from lsp_server.postprocess.indent_style import style_of
from lsp_server.postprocess.indent_to_style import indent_to_style
from lsp_server.postprocess.line_ends import line_end_near, use_line_ends
from lsp_server.postprocess.proposal import Drop, Filter, Place, Proposal, Syntax
from lsp_server.postprocess.repetition import cut_repetition
from lsp_server.postprocess.scope import stop_at_scope
from lsp_server.postprocess.single_line import keep_one_line
from lsp_server.postprocess.suffix_overlap import cut_suffix_overlap
from lsp_server.postprocess.trailing_space import trim_trailing_space
from lsp_server.postprocess.worthless import drop_worthless
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax.tree import SyntaxTree

__all__ = ["FILTERS", "Drop", "Place", "Proposal", "place_at", "refine"]

FILTERS: tuple[Filter, ...] = (
    keep_one_line,
    stop_at_scope,
    cut_suffix_overlap,
    replace_closers,
    cut_repetition,
    indent_to_style,
    trim_trailing_space,
    drop_worthless,
    use_line_ends,
)
MAX_FOLLOWING = 40
MAX_PRECEDING = 200


def place_at(
    snapshot: Snapshot,
    point: Point,
    *,
    single_line: bool,
    invoked: bool,
    may_replace: bool = True,
    tree: SyntaxTree | None = None,
) -> Place:
    """The place ``point`` is in its document; ``tree`` is the document's, if it has a grammar."""
    last = min(len(snapshot.lines), point.line + 1 + MAX_FOLLOWING)
    first = max(0, point.line - MAX_PRECEDING)
    content = snapshot.content(point.line)
    preceding = tuple(snapshot.content(line) for line in range(first, point.line))
    following = tuple(snapshot.content(line) for line in range(point.line + 1, last))
    return Place(
        head=content[: point.column],
        rest=content[point.column :],
        preceding=preceding,
        following=following,
        line_end=line_end_near(snapshot, point.line),
        single_line=single_line,
        invoked=invoked,
        may_replace=may_replace,
        indent_style=style_of((*preceding, content, *following)),
        syntax=Syntax(tree, point) if tree is not None else None,
    )


def refine(text: str, place: Place) -> Proposal | Drop:
    """Run all filters over an answer; the first drop ends it."""
    proposal: Proposal | Drop = Proposal(text)
    for apply in FILTERS:
        if isinstance(proposal, Drop):
            break
        proposal = apply(proposal, place)
    return proposal
