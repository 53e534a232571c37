"""Drafts that cost no model call: what a draft source is, and the continuation of an earlier n-gram.

A draft is only a guess: the verified policy accepts the part that the model agrees with (decoding.md section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]

MAX_NGRAM = 8
_FEW_PLACES = 6
# What the prompt's own forward promises of the answer's beginning: its first token is nearly sure. Fixed rules weigh it
# like a match of so many tokens.
OUTLOOK = "outlook"
OUTLOOK_SUPPORT = 3.5


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess of what follows; ``support`` is how many tokens of evidence stand behind it, ``source`` who made it."""

    tokens: list[int]
    support: float = 0.0
    source: str = ""


NO_DRAFT = Draft([])


class DraftSource(Protocol):
    """Guesses what comes next. ``observe`` sees every committed token of the answer, in order."""

    def observe(self, tokens: Sequence[int]) -> None:
        """Tokens that were just committed."""
        ...

    def propose(self, limit: int) -> Draft:
        """At most ``limit`` tokens that may follow; no tokens when there is no guess."""
        ...


def best_draft(sources: Sequence[DraftSource], limit: int) -> Draft:
    """The draft with the most support; of equals, that of the earlier source."""
    drafts = [source.propose(limit) for source in sources]
    return max((draft for draft in drafts if draft.tokens), key=lambda draft: draft.support, default=NO_DRAFT)


def find_longest_suffix(haystack: Tokens, tail: Sequence[int]) -> tuple[Tokens, int]:
    """Where the longest possible end of ``tail`` (up to :data:`MAX_NGRAM` tokens) occurs in ``haystack``.

    Returns the indices just behind each occurrence, ascending, and the number of tokens matched (0: nowhere).
    """
    if not len(tail) or not len(haystack):
        return np.empty(0, dtype=np.int64), 0
    ends = (haystack == tail[-1]).nonzero()[0] + 1
    if not len(ends):
        return ends, 0
    length, most = 1, min(MAX_NGRAM, len(tail))
    while length < most and len(ends) > _FEW_PLACES:
        candidates = ends if ends[0] > length else ends[ends > length]
        longer = candidates[haystack[candidates - (length + 1)] == tail[-length - 1]]
        if not len(longer):
            return ends, length
        ends, length = longer, length + 1
    # Few places are followed token by token: on arrays each step takes ten times as long.
    found: list[int] = []
    shortest = length
    for end in ends.tolist():
        matched, reach = shortest, min(most, end)
        while matched < reach and haystack[end - matched - 1] == tail[-matched - 1]:
            matched += 1
        if matched > length:
            found, length = [], matched
        if matched == length:
            found.append(end)
    return np.array(found, dtype=np.int64), length


class LookupDraft:
    """What followed the most recent occurrence of the last few tokens, in the prompt or in the answer itself."""

    # How far a guess reaches by the length of the match that supports it: one common token says little.
    _REACH = (0, 3, 6)

    def __init__(self, context: Sequence[int]) -> None:
        self._length = len(context)
        self._tokens: Tokens = np.empty(max(1024, 2 * self._length), dtype=np.int64)
        self._tokens[: self._length] = context

    def observe(self, tokens: Sequence[int]) -> None:
        """Append committed tokens to the history."""
        end = self._length + len(tokens)
        if end > len(self._tokens):
            self._tokens = np.concatenate((self._tokens, np.empty(end, dtype=np.int64)))
        self._tokens[self._length : end] = tokens
        self._length = end

    def propose(self, limit: int) -> Draft:
        """The continuation of the most recent longest match; its support is the length of the match."""
        history = self._tokens[: self._length]
        # The history without its last token: the end of the history trivially matches itself.
        ends, matched = find_longest_suffix(history[:-1], history[-MAX_NGRAM:].tolist())
        if not matched:
            return NO_DRAFT
        reach = min(limit, self._REACH[matched] if matched < len(self._REACH) else limit)
        start = int(ends[-1])
        return Draft(history[start : start + reach].tolist(), support=matched, source="lookup")
