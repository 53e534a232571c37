"""What a peer is, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bench.peers.items import Item


class Unavailable(Exception):
    """A peer cannot take part; the message says what is missing and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A text and its times in seconds: the prompt but for its last token, the rest up to the token that ended it, all.

    ``num_forwards`` is 0 where the peer does not tell.
    """

    text: str
    prefill_s: float
    decode_s: float
    total_s: float
    num_forwards: int = 0


class Peer(Protocol):
    """Answers items one at a time, each from an empty cache."""

    name: str

    def describe(self) -> str:
        """Version and settings."""
        ...

    def answer(self, item: Item) -> Answer:
        """Answer one item."""
        ...

    def close(self) -> None:
        """Free what was taken."""
        ...
