"""Bracket and quote counting over a piece of code, in any language: an estimate, not a parse."""

from __future__ import annotations

from dataclasses import dataclass

PAIRS = {"(": ")", "[": "]", "{": "}"}
QUOTES = frozenset("'\"`")
CLOSING = frozenset(PAIRS.values()) | QUOTES
# What may follow closers at the end of a line without being text of its own.
TRAILING = frozenset(":;,")
OPENER_OF = {closer: opener for opener, closer in PAIRS.items()} | {quote: quote for quote in QUOTES}


def is_only_closers(text: str) -> bool:
    """Whether nothing but closers, trailing punctuation and white space stands in ``text`` (so an empty one passes)."""
    return all(character in CLOSING or character in TRAILING or character.isspace() for character in text)


def count_non_closers(text: str) -> int:
    """Characters that are neither closers, trailing punctuation nor white space."""
    return sum(not (c in CLOSING or c in TRAILING or c.isspace()) for c in text)


@dataclass(frozen=True)
class Balance:
    """What a text leaves open and what it closes of the text before it.

    ``closed`` holds the indices of closers without an opener in the text, in order; ``num_open`` counts openers
    (and quotes) without a closer.
    """

    closed: tuple[int, ...]
    num_open: int


def balance_of(text: str, expected: str = "") -> Balance:
    """Scan ``text``.

    ``expected`` holds the closers that the code before it still needs, in order: a quote closes a string of that code
    only if it is the next one expected; other quotes open a string of ``text`` itself.
    """
    stack: list[str] = []
    closed: list[int] = []
    quote = ""
    skip = False
    for index, character in enumerate(text):
        if skip:
            skip = False
        elif quote:
            if character == "\\":
                skip = True
            elif character == quote or (character == "\n" and quote != "`"):
                quote = ""
        elif character in QUOTES:
            if not stack and expected[len(closed) : len(closed) + 1] == character:
                closed.append(index)
            else:
                quote = character
        elif character in PAIRS:
            stack.append(PAIRS[character])
        elif character in CLOSING:
            if stack:
                stack.pop()
            else:
                closed.append(index)
    return Balance(tuple(closed), len(stack) + bool(quote))
