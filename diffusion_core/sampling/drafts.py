"""Drafts that cost no model call: the continuation of an earlier n-gram, and a text known to be nearly the answer.

A draft is only a guess: the verified policy accepts the part that the model agrees with (decoding.md section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]

MAX_NGRAM = 8


class DraftSource(Protocol):
    """Guesses what comes next. ``observe`` sees every committed token of the answer, in order."""

    def observe(self, tokens: Sequence[int]) -> None:
        """Tokens that were just committed."""
        ...

    def propose(self, limit: int) -> list[int]:
        """At most ``limit`` tokens that may follow; empty when there is no guess."""
        ...


def find_longest_suffix(haystack: Tokens, tail: Sequence[int]) -> tuple[Tokens, int]:
    """Where the longest possible end of ``tail`` (up to :data:`MAX_NGRAM` tokens) occurs in ``haystack``.

    Returns the indices just behind each occurrence, ascending, and the number of tokens matched (0: nowhere).
    """
    if not len(tail) or not len(haystack):
        return np.empty(0, dtype=np.int64), 0
    ends = np.flatnonzero(haystack == tail[-1]) + 1
    if not len(ends):
        return ends, 0
    length = 1
    while length < min(MAX_NGRAM, len(tail)):
        candidates = ends[ends > length]
        longer = candidates[haystack[candidates - length - 1] == tail[-length - 1]]
        if not len(longer):
            break
        ends, length = longer, length + 1
    return ends, length


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

    def propose(self, limit: int) -> list[int]:
        """The continuation of the most recent longest match."""
        history = self._tokens[: self._length]
        # The history without its last token: the end of the history trivially matches itself.
        ends, matched = find_longest_suffix(history[:-1], history[-MAX_NGRAM:].tolist())
        if not matched:
            return []
        reach = min(limit, self._REACH[matched] if matched < len(self._REACH) else limit)
        start = int(ends[-1])
        return [int(t) for t in history[start : start + reach]]


class AlignedDraft:
    """A text that the answer mostly repeats: the selection of an edit, or the tail of the last suggestion.

    The draft is the rest of the text from a pointer on. When the answer departs from it, the pointer is set anew by
    the longest end of the answer that occurs in the text, the nearest place first.
    """

    _MIN_MATCH = 2

    def __init__(self, text: Sequence[int]) -> None:
        self._text: Tokens = np.asarray(text, dtype=np.int64)
        self._pointer: int | None = 0
        self._expected = 0  # where the pointer would be had the answer not departed
        self._answer: list[int] = []

    def observe(self, tokens: Sequence[int]) -> None:
        """Follow the committed tokens along the text; search again where they depart from it."""
        for token in tokens:
            self._answer.append(token)
            pointer = self._pointer
            if pointer is not None and pointer < len(self._text) and self._text[pointer] == token:
                self._pointer = self._expected = pointer + 1
            else:
                self._realign(is_first_departure=pointer is not None)

    def _realign(self, *, is_first_departure: bool) -> None:
        ends, matched = find_longest_suffix(self._text, self._answer[-MAX_NGRAM:])
        if matched >= self._MIN_MATCH:
            nearest = int(np.abs(ends - self._expected).argmin())
            self._pointer = self._expected = int(ends[nearest])
        elif is_first_departure:
            # One token was replaced: the likeliest edit of all. If not, the next observation searches again.
            self._pointer = min(self._expected + 1, len(self._text))
        else:
            self._pointer = None

    def propose(self, limit: int) -> list[int]:
        """The text from the pointer on."""
        if self._pointer is None:
            return []
        return [int(t) for t in self._text[self._pointer : self._pointer + limit]]
