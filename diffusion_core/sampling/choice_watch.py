"""How probable the tokens of a forward were, for somebody who watches an answer come about.

A watch is told of the scores of every choice. It answers for one forward, then forgets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class _Rows:
    """Scores [R, V], temperature 1, of positions ``first`` to ``first`` + R - 1; ``chosen`` [R] of them."""

    first: int
    chosen: list[int]
    scores: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Guesses:
    """What a drafter's own head guessed from ``first`` on, and how sure it was."""

    first: int
    tokens: list[int]
    sure: list[float]


class ChoiceWatch:
    """Scores of the choices since :meth:`forget`. A verdict on a draft comes before the slots that ride behind it."""

    def __init__(self) -> None:
        self._rows: list[_Rows] = []
        self._guesses: _Guesses | None = None

    def note(self, logits: torch.Tensor, positions: Sequence[int], chosen: Sequence[int]) -> None:
        """Rows ``logits`` [R, V] without temperature, the adjacent positions they speak of, and what was chosen."""
        if len(positions):
            self._rows.append(_Rows(positions[0], list(chosen), logits))

    def note_guesses(self, first: int, tokens: list[int], sure: list[float]) -> None:
        """Guesses of a drafter's own head for the positions from ``first`` on."""
        self._guesses = _Guesses(first, tokens, sure)

    def forget(self) -> None:
        """The forward is told: its scores may go."""
        self._rows.clear()
        self._guesses = None

    def judged(self, start: int, tokens: Sequence[int]) -> list[float | None]:
        """The model's probability of each of ``tokens`` at ``start`` on, where the rows that judged them say so."""
        found = [rows for rows in self._rows if rows.first <= start]
        return _probabilities(found[-1] if found else None, start, tokens)

    def drafted(self, start: int, tokens: Sequence[int | None]) -> list[tuple[int | None, float | None]]:
        """What stands in the slots from ``start`` on, and how sure: for a masked one (None) the model's best guess."""
        if self._guesses is not None and self._guesses.first == start:
            return list(zip(tokens, self._guesses.sure, strict=False))
        rows = self._rows[-1] if self._rows else None
        if rows is None or not rows.first <= start < rows.first + len(rows.chosen):
            return [(token, None) for token in tokens]
        behind = rows.chosen[start - rows.first :]
        shown = [behind[at] if token is None and at < len(behind) else token for at, token in enumerate(tokens)]
        return list(zip(shown, _probabilities(rows, start, [token or 0 for token in shown]), strict=True))


def _probabilities(rows: _Rows | None, start: int, tokens: Sequence[int]) -> list[float | None]:
    """Of ``tokens`` at ``start`` on; None behind the last row."""
    if rows is None or not len(tokens):
        return [None] * len(tokens)
    scores = rows.scores[start - rows.first :][: len(tokens)]
    if not len(scores):
        return [None] * len(tokens)
    wanted = torch.tensor(tokens[: len(scores)], device=scores.device).unsqueeze(-1)
    found: list[float | None] = scores.float().softmax(-1).gather(-1, wanted).squeeze(-1).tolist()
    return found + [None] * (len(tokens) - len(found))
