r"""The part of a document that the engine is shown: text before and after the cursor within a budget.

The engine keeps the model's state of a prompt and pays only for what differs from it. So the window's beginning must
stay where it is while the user types: it moves in steps of many lines, not with every character.
Line ends are ``\n`` inside a window, whatever the document has.
"""

from __future__ import annotations

from dataclasses import dataclass

from lsp_server.positions import without_lone_surrogates
from lsp_server.snapshot import Point, Snapshot

STEPS = (64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Window:
    """Text before and after the cursor."""

    prefix: str
    suffix: str


def window_around(snapshot: Snapshot, point: Point, max_prefix: int, max_suffix: int) -> Window:
    """At most ``max_prefix`` characters before ``point`` and ``max_suffix`` after it, whole lines where possible."""
    prefix = text_before(snapshot, point, max_prefix)
    suffix = text_after(snapshot, point, max_suffix)
    return Window(prefix=without_lone_surrogates(prefix), suffix=without_lone_surrogates(suffix))


def text_before(snapshot: Snapshot, point: Point, budget: int) -> str:
    """The text that ends at ``point``; what precedes the document belongs to it (see ``Snapshot.preceding``)."""

    def content(line: int) -> str:
        return snapshot.content(line) if line >= 0 else snapshot.preceding[line]

    top = -len(snapshot.preceding)
    head = snapshot.content(point.line)[: point.column]
    if len(head) > budget:
        return _stable_tail(head, budget)
    earliest, size = point.line, len(head)
    while earliest > top and size + len(content(earliest - 1)) + 1 <= budget:
        earliest -= 1
        size += len(content(earliest)) + 1
    start = top + _stable_start(earliest - top, point.line - top)
    return "".join(f"{content(line)}\n" for line in range(start, point.line)) + head


def text_after(snapshot: Snapshot, point: Point, budget: int) -> str:
    """The text that begins at ``point``; its last line is whole unless it is the cursor's own."""
    rest = snapshot.content(point.line)[point.column :]
    if len(rest) >= budget:
        return rest[:budget]
    parts, size, line = [rest], len(rest), point.line
    while line + 1 < len(snapshot.lines) and size + 1 + len(snapshot.content(line + 1)) <= budget:
        line += 1
        parts.append(snapshot.content(line))
        size += 1 + len(parts[-1])
    return "\n".join(parts)


def _stable_start(earliest: int, cursor: int) -> int:
    """The first line of a window that could begin at ``earliest``.

    It is the next multiple of the largest step that gives up no more than half of the lines.
    """
    if earliest == 0:
        return 0
    for step in STEPS:
        start = -(-earliest // step) * step
        if start - earliest <= (cursor - earliest) // 2:
            return start
    return earliest


def _stable_tail(line: str, budget: int) -> str:
    """The end of a line that is longer than the whole budget; its beginning moves by quarters of the budget."""
    step = max(1, budget // 4)
    start = -(-(len(line) - budget) // step) * step
    return line[start:]
