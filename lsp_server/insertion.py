"""Edits on a blank line: new code is inserted, in the indentation and at the distance that belong there."""

from __future__ import annotations

from collections.abc import Iterable

from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import parse
from lsp_server.syntax.definitions import definition_node_at
from lsp_server.text_edits import Lines

OPENERS = (":", "{", "(", "[", ",")
CLOSERS = ("}", ")", "]", "end", "else", "elif", "except", "finally")


def indentation_pattern(snapshot: Snapshot, lines: Lines, selection: str) -> str:
    """A text that is indented as the answer to an edit of ``selection`` should be: mostly the selection itself.

    A blank selection has nothing to go by. Then its own white space counts, or, on an empty line, what the
    lines above and below share: between two methods that is the indentation of methods. At the edges of a block it is
    that of the block.
    """
    if selection.strip():
        return selection
    own = snapshot.content(lines.first)
    if own:
        return own + "|"
    above = _nearest(snapshot, range(lines.first - 1, -1, -1))
    below = _nearest(snapshot, range(lines.end, len(snapshot.lines)))
    if above is None or below is None:
        return "|"
    if below.lstrip().startswith(CLOSERS):
        return _indent(above) + "|"
    if above.rstrip().endswith(OPENERS):
        return _indent(below) + "|"
    return min(_indent(above), _indent(below), key=len) + "|"


def set_apart(snapshot: Snapshot, lines: Lines, text: str) -> str:
    r"""A definition that is inserted in place of blank ``lines`` keeps its distance to its neighbours.

    ``text`` has ``\n`` line ends. Statements stay as they are: they may belong to what stands next to them.
    """
    contents = text.rstrip("\n").split("\n")
    if not _begins_with_definition(contents, snapshot.language):
        return text
    wanted = 2 if snapshot.language == "python" and not _indent(contents[0]) else 1
    above = _num_missing(snapshot, range(lines.first - 1, -1, -1), wanted, OPENERS, at_end=True)
    below = _num_missing(snapshot, range(lines.end, len(snapshot.lines)), wanted, CLOSERS, at_end=False)
    ends = text[len(text.rstrip("\n")) :]
    return "\n" * above + "\n".join(contents) + "\n" * below + ends


def _begins_with_definition(contents: list[str], language: str) -> bool:
    tree = parse(contents, language)
    if tree is None:
        return False
    first = next((line for line, content in enumerate(contents) if content.strip()), None)
    return first is not None and definition_node_at(tree, Point(first, len(contents[first]))) is not None


def _num_missing(snapshot: Snapshot, order: Iterable[int], wanted: int, edges: tuple[str, ...], *, at_end: bool) -> int:
    """Blank lines that lack before the next content; none at the edge of a block or of the document."""
    for num_blank, line in enumerate(order):
        content = snapshot.content(line).strip()
        if content:
            is_edge = content.endswith(edges) if at_end else content.startswith(edges)
            return 0 if is_edge else max(0, wanted - num_blank)
    return 0


def _nearest(snapshot: Snapshot, order: Iterable[int]) -> str | None:
    """The first line with content."""
    return next((snapshot.content(line) for line in order if snapshot.content(line).strip()), None)


def _indent(content: str) -> str:
    return content[: len(content) - len(content.lstrip())]
