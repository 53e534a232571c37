"""How many tokens to draft: grows while drafts are accepted whole, shrinks to what was last accepted."""

from __future__ import annotations


class DraftLength:
    """A length between ``least`` and ``most``; more rows than that would leave the decode shape of the attention."""

    def __init__(self, *, least: int = 8, most: int = 64) -> None:
        self._least, self._most = least, most
        self._length = min(2 * least, most)

    @property
    def value(self) -> int:
        """Tokens to draft in the next round."""
        return self._length

    def observe(self, num_drafted: int, num_accepted: int) -> None:
        """Result of a round that drafted something."""
        if num_accepted == num_drafted and num_drafted >= self._length:
            self._length = min(2 * self._length, self._most)
        elif num_accepted < num_drafted:
            self._length = min(max(2 * num_accepted, self._least), self._most)
