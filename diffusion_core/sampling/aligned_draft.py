"""Drafts from a text that the answer mostly repeats: the selection of an edit, or the tail of the last suggestion.

The draft is the rest of the text from a pointer on. Where the answer departs from the text, the pointer is set anew,
and the departure is remembered: when the same place comes again (the next use of a renamed name, the next signature
that gets a type), the draft already holds the replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_core.sampling.drafts import MAX_NGRAM, NO_DRAFT, Draft, Tokens, find_longest_suffix

# A replacement is remembered up to this many tokens of the text and of the answer.
_MAX_REPLACED = 6
_MAX_REPLACEMENT = 24

# How far ahead a single matching token is taken for a deletion.
_DELETION_WINDOW = 24

# Tokens that must agree before the pointer is set anew.
_MIN_MATCH = 2

# A guess without evidence of its own: less than a bigram, more than nothing.
_WEAK_SUPPORT = 1.5


@dataclass(frozen=True, slots=True)
class _Departure:
    """Where the answer left the text: index in the text, and index in the answer."""

    text_index: int
    answer_index: int


class AlignedDraft:
    """Follows the answer along ``text`` and proposes the text's continuation; ``source`` says what the text is."""

    def __init__(self, text: Sequence[int], source: str = "selection") -> None:
        self._source = source
        self._text: Tokens = np.asarray(text, dtype=np.int64)
        self._answer: list[int] = []
        self._pointer = 0
        self._agreed = MAX_NGRAM  # tokens followed since the pointer was set; the start is a good guess
        self._departure: _Departure | None = None
        self._replacements: dict[tuple[int, ...], list[int]] = {}
        self._plan: list[tuple[int, int]] = []  # draft tokens, each with the pointer behind it

    @property
    def text(self) -> tuple[int, ...]:
        """The whole text, as tokens."""
        return tuple(self._text.tolist())

    def propose(self, limit: int) -> Draft:
        """The text from the pointer on, with known replacements made."""
        self._plan = self._make_plan(limit)
        if not self._plan:
            return NO_DRAFT
        support = _WEAK_SUPPORT if self._departure else self._agreed + 0.5
        return Draft([token for token, _ in self._plan], support, self._source)

    def remaining(self, limit: int) -> list[int]:
        """What a preview shows as not yet confirmed."""
        return [token for token, _ in self._make_plan(limit)]

    def observe(self, tokens: Sequence[int]) -> None:
        """Follow the committed tokens along the text; search again where they depart from it."""
        for token in tokens:
            if not self._plan:
                self._plan = self._make_plan(len(tokens))
            planned = self._plan.pop(0) if self._plan else None
            if planned is not None and planned[0] == token:
                self._answer.append(token)
                self._pointer = planned[1]
                self._agreed += 1
                if self._departure and self._agreed >= _MIN_MATCH:
                    self._learn(self._agreed)
            else:
                self._depart(token)

    def _depart(self, token: int) -> None:
        """The answer left the text (or is still away): guess where it will return."""
        self._plan = []
        is_first = self._departure is None
        if is_first:
            self._departure = _Departure(self._pointer, len(self._answer))
        self._answer.append(token)
        self._agreed = 0
        assert self._departure is not None
        start = self._departure.text_index
        ends, matched = find_longest_suffix(self._text, self._answer[-MAX_NGRAM:])
        if matched >= _MIN_MATCH:
            # An insertion may repeat earlier code: what lies ahead is likelier than what lies behind.
            distance = np.where(ends >= start, ends - start, 4 * (start - ends))
            self._pointer = int(ends[int(distance.argmin())])
            self._agreed = matched
            self._learn(matched)
            return
        ahead = np.flatnonzero(self._text[start + 1 : start + 1 + _DELETION_WINDOW] == token)
        if is_first and len(ahead):
            self._pointer = start + 2 + int(ahead[0])  # a deletion
        elif is_first:
            self._pointer = min(start + 1, len(self._text))  # one token replaced
        else:
            self._pointer = start  # an insertion: the text goes on where it was left

    def _learn(self, num_agreed: int) -> None:
        """The answer is back on the text: remember what replaced what."""
        departure, self._departure = self._departure, None
        assert departure is not None
        end_text, end_answer = self._pointer - num_agreed, len(self._answer) - num_agreed
        replaced = self._text[departure.text_index : end_text]
        replacement = self._answer[departure.answer_index : end_answer]
        if end_text < departure.text_index or end_answer < departure.answer_index or departure.text_index == 0:
            return
        if len(replaced) > _MAX_REPLACED or len(replacement) > _MAX_REPLACEMENT or end_text >= len(self._text):
            return
        # Known by its neighbours: the token before, what was replaced, the token behind.
        key = self._text[departure.text_index - 1 : end_text + 1]
        self._replacements[tuple(key.tolist())] = replacement

    def _make_plan(self, limit: int) -> list[tuple[int, int]]:
        plan: list[tuple[int, int]] = []
        index = self._pointer
        while len(plan) < limit and index < len(self._text):
            found = self._find_replacement(index)
            if found is not None:
                replacement, index = found
                plan += [(token, index) for token in replacement]
                if index >= len(self._text):
                    break
            plan.append((int(self._text[index]), index + 1))
            index += 1
        return plan[:limit]

    def _find_replacement(self, index: int) -> tuple[list[int], int] | None:
        """What replaced this very place before, and the index behind the replaced tokens."""
        if not self._replacements or index == 0:
            return None
        near = self._text[index - 1 : index + _MAX_REPLACED + 1].tolist()
        for length in range(len(near), 1, -1):
            replacement = self._replacements.get(tuple(near[:length]))
            if replacement is not None:
                return replacement, index + length - 2
        return None
