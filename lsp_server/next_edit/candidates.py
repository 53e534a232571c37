"""The lines where a change could be made as well, what they would become, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lsp_server.next_edit.line_change import LineChange, Rename, Replacement, tokens_of

MAX_CANDIDATES = 50
NEAR_LINES = 10


@dataclass(frozen=True)
class Candidate:
    """``line`` would become ``text``; ``features`` name the kind of place, for the calibration."""

    line: int
    text: str
    features: tuple[str, ...]

    @property
    def key(self) -> str:
        """The place's kind as one word."""
        return ":".join(self.features)


def find_candidates(
    lines: Sequence[str], edited: range, change: LineChange, earlier: Sequence[LineChange] = ()
) -> list[Candidate]:
    """Places for ``change`` in a document's lines (without terminators) outside of the ``edited`` ones, nearest first.

    ``earlier`` are the changes that the user made before this one: a change made twice is likely made again.
    """
    repeated = "again" if any(_is_same(change, other) for other in earlier) else "once"
    found = (
        _uses(lines, edited, change, repeated)
        if isinstance(change, Rename)
        else _siblings(lines, edited, change, repeated)
    )
    middle = (edited.start + edited.stop) // 2
    return sorted(found, key=lambda candidate: (abs(candidate.line - middle), candidate.line))[:MAX_CANDIDATES]


def _is_same(change: LineChange, other: LineChange) -> bool:
    if isinstance(change, Rename) and isinstance(other, Rename):
        return (change.old, change.new) == (other.old, other.new)
    if isinstance(change, Replacement) and isinstance(other, Replacement):
        return (change.old, change.new) == (other.old, other.new)
    return False


def _uses(lines: Sequence[str], edited: range, change: Rename, repeated: str) -> list[Candidate]:
    found: list[tuple[int, str, int]] = []
    for number, line in enumerate(lines):
        if number in edited or change.old not in line:
            continue
        tokens = tokens_of(line)
        count = tokens.count(change.old)
        if count:
            found.append((number, "".join(change.new if token == change.old else token for token in tokens), count))
    definition = "definition" if change.is_definition else "use"
    amount = "few" if len(found) <= 3 else "several" if len(found) <= 12 else "many"
    return [
        Candidate(number, text, ("rename", definition, repeated, amount, _distance(number, edited)))
        for number, text, _ in found
    ]


def _siblings(lines: Sequence[str], edited: range, change: Replacement, repeated: str) -> list[Candidate]:
    found: list[tuple[int, str, str, bool]] = []
    for number, line in enumerate(lines):
        if number in edited or not all(token in line for token in change.old):
            continue
        tokens = tokens_of(line)
        strict = _replaced(tokens, change, 2)
        text = strict or _replaced(tokens, change, 1)
        if text is not None and text != line:
            indent = len(tokens[0]) if tokens and tokens[0].isspace() else 0
            found.append((number, text, "strict" if strict else "loose", indent == change.indent))
    amount = "few" if len(found) <= 3 else "several" if len(found) <= 12 else "many"
    what = "replace" if change.old else "insert"
    return [
        Candidate(
            number,
            text,
            (what, context, repeated, amount, "level" if is_level else "other", _distance(number, edited)),
        )
        for number, text, context, is_level in found
    ]


def _replaced(tokens: list[str], change: Replacement, num_context: int) -> str | None:
    """The line with the change made at the first place that has the change's neighbours."""
    left, right = change.left[-num_context:], change.right[:num_context]
    if len(change.left) < num_context and len(change.right) < num_context:
        return None
    size = len(change.old)
    for at in range(len(tokens) - size + 1):
        if tuple(tokens[at : at + size]) != change.old:
            continue
        before = tuple(token for token in tokens[:at] if not token.isspace())
        after = tuple(token for token in tokens[at + size :] if not token.isspace())
        if before[len(before) - len(left) :] == left and after[: len(right)] == right:
            if change.new and tuple(tokens[at : at + len(change.new)]) == change.new:
                continue  # it is made here already
            return "".join([*tokens[:at], *change.new, *tokens[at + size :]])
    return None


def _distance(number: int, edited: range) -> str:
    near = edited.start - NEAR_LINES <= number < edited.stop + NEAR_LINES
    return "near" if near else "far"
