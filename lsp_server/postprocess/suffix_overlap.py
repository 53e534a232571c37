"""An answer must not repeat what already stands after the cursor."""

from __future__ import annotations

from dataclasses import replace

from lsp_server.brackets import balance_of, is_only_closers
from lsp_server.postprocess.proposal import Place, Proposal

MIN_PARTIAL_OVERLAP = 3


def cut_suffix_overlap(proposal: Proposal, place: Place) -> Proposal:
    """Cut the answer's end where it repeats the rest of the line or the following lines."""
    text = _without_following_lines(proposal.text, place.following)
    return replace(proposal, text=_without_rest(text, place.rest))


def _without_following_lines(text: str, following: tuple[str, ...]) -> str:
    """Cut where the answer's lines become the document's next ones: to its end, or for at least two lines."""
    lines = text.split("\n")
    expected = [line.rstrip() for line in following if line.strip()]
    for index in range(1, len(lines)):
        tail = [line.rstrip() for line in lines[index:] if line.strip()]
        num_equal = 0
        while num_equal < min(len(tail), len(expected)) and tail[num_equal] == expected[num_equal]:
            num_equal += 1
        if lines[index].strip() and num_equal and (num_equal == len(tail) or num_equal >= 2):
            return "\n".join(lines[:index])
    return text


def _without_rest(text: str, rest: str) -> str:
    """Cut the largest end of the answer that is a beginning of the rest of the line.

    Closers alone are left to ``closers.py``. A cut that would leave a bracket open belongs to the answer itself:
    ``bar(b)`` before ``)`` is no repetition.
    """
    rest = rest.rstrip()
    if is_only_closers(rest):
        return text
    first, *others = text.split("\n", 1)
    if others:
        return text
    num_open = balance_of(first).num_open
    for size in range(min(len(rest), len(first)), 0, -1):
        whole = size == len(rest)
        if not whole and size < MIN_PARTIAL_OVERLAP:
            break
        if first.endswith(rest[:size]) and balance_of(first[:-size]).num_open <= num_open:
            return first[:-size]
    return text
