"""What a sequence wants evaluated. Whoever drives several of them lets their rows ride in one call of the model.

Decoding is written as generators that yield a want and are sent its outcome. Driven alone (:func:`run_alone`,
:func:`progress_of`) each want is a call of its own; the engine gathers those of many sequences (``together.py``).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from diffusion_core.model.kv_cache import KVCache
from diffusion_core.sampling.evaluate import Denoiser

T = TypeVar("T")
P = TypeVar("P")


@dataclass(slots=True)
class Evaluated:
    """Outcome of :class:`RowsWanted`: ``hidden`` [T, D], the taps [1, T, D] each (None: not wanted), the best tokens.

    ``best`` is filled where a captured round took them itself. ``num_sequences`` shared the forward.
    """

    hidden: torch.Tensor
    tapped: list[torch.Tensor] | None = None
    best: list[int] = field(default_factory=list)
    num_sequences: int = 1


@dataclass(slots=True)
class RowsWanted:
    """Rows ``tokens`` [T] behind a cache, as :meth:`Denoiser.evaluate` takes them; the outcome is :class:`Evaluated`.

    ``may_share``: what comes of them does not depend on bits of slots under an adapter, the only ones that company
    could change. ``piece``: the rows may also be evaluated a part at a time, the first ones first, in multiples of this
    (0: all or none); the outcome then has fewer rows.
    """

    denoiser: Denoiser
    cache: KVCache
    tokens: Sequence[int]
    positions: Sequence[int] | None = None
    visible: torch.Tensor | None = None
    first_slot: int | None = None
    wants_taps: bool = False
    wants_best: bool = False
    may_share: bool = True
    piece: int = 0

    @property
    def can_share(self) -> bool:
        """Whether the rows, or the first of them, can ride with others'."""
        fits = len(self.tokens) <= self.denoiser.most_shared_rows or self.piece > 0
        return self.may_share and self.denoiser.can_share and fits

    def first(self, num_rows: int) -> RowsWanted:
        """The want for as many of the first rows as ``num_rows`` and :attr:`piece` allow; itself if that is all."""
        if num_rows >= len(self.tokens):
            return self
        assert self.piece > 0
        count = num_rows // self.piece * self.piece
        visible = None if self.visible is None else self.visible[:count, :count]
        first_slot = self.first_slot if self.first_slot is not None and self.first_slot < count else None
        return replace(self, tokens=self.tokens[:count], visible=visible, first_slot=first_slot)

    def alone(self) -> Evaluated:
        """The outcome of a forward of its own."""
        tapped: list[torch.Tensor] | None = [] if self.wants_taps else None
        best: list[int] = []
        hidden = self.denoiser.evaluate(
            self.cache, self.tokens, positions=self.positions, visible=self.visible, first_slot=self.first_slot,
            tapped=tapped, best=best if self.wants_best else None,
        )  # fmt: skip
        return Evaluated(hidden, tapped, best)


@dataclass(frozen=True, slots=True)
class ScoresWanted:
    """The head's scores of ``hidden`` [R, D]; the outcome is [R, V] in the dtype in which the head gives them."""

    denoiser: Denoiser
    hidden: torch.Tensor

    def alone(self) -> torch.Tensor:
        """The outcome of a call of its own."""
        return self.denoiser.scores(self.hidden)


@dataclass(frozen=True, slots=True)
class BestWanted:
    """The best token of each of ``hidden`` [R, D] by the head's scores, the first of equals: a list of R tokens."""

    denoiser: Denoiser
    hidden: torch.Tensor

    def alone(self) -> list[int]:
        """The outcome of a call of its own."""
        return self.denoiser.best(self.hidden)


@dataclass(frozen=True, slots=True)
class GuessesWanted:
    """Tokens of slots ``hidden`` [R, D] by the drafter's own small head; the outcome is a list of R tokens."""

    denoiser: Denoiser
    hidden: torch.Tensor

    def alone(self) -> list[int]:
        """The outcome of a call of its own."""
        return self.denoiser.guess(self.hidden)


Reading = ScoresWanted | BestWanted | GuessesWanted
Want = RowsWanted | Reading
# Yields wants, is sent their outcomes, and returns a T. mypy cannot tie an outcome to its want: `ask_*` do.
Asking = Generator[Want, Any, T]
# The same, with progress of type P between the wants.
Decoding = Generator[Want | P, Any, None]


def ask_rows(want: RowsWanted) -> Asking[Evaluated]:
    """The outcome of ``want``."""
    outcome: Evaluated = yield want
    return outcome


def ask_scores(denoiser: Denoiser, hidden: torch.Tensor) -> Asking[torch.Tensor]:
    """Scores [R, V] of ``hidden`` [R, D]."""
    outcome: torch.Tensor = yield ScoresWanted(denoiser, hidden)
    return outcome


def ask_logits(denoiser: Denoiser, hidden: torch.Tensor) -> Asking[torch.Tensor]:
    """As :func:`ask_scores`, in float32."""
    return (yield from ask_scores(denoiser, hidden)).float()


def ask_best(denoiser: Denoiser, hidden: torch.Tensor) -> Asking[list[int]]:
    """The best token of each of ``hidden`` [R, D], without holding all scores at once."""
    outcome: list[int] = yield BestWanted(denoiser, hidden)
    return outcome


def ask_guesses(denoiser: Denoiser, hidden: torch.Tensor) -> Asking[list[int]]:
    """Tokens of slots ``hidden`` [R, D] by the drafter's own head."""
    outcome: list[int] = yield GuessesWanted(denoiser, hidden)
    return outcome


def run_alone(asking: Asking[T]) -> T:
    """What ``asking`` returns when each want is a call of its own."""
    outcome: Any = None
    while True:
        try:
            want = asking.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
        outcome = want.alone()


def progress_of(decoding: Decoding[P]) -> Iterator[P]:
    """The progress of ``decoding`` when each want is a call of its own."""
    outcome: Any = None
    try:
        while True:
            try:
                item = decoding.send(outcome)
            except StopIteration:
                return
            outcome = None
            if isinstance(item, Want):
                outcome = item.alone()
            else:
                yield item
    finally:
        decoding.close()
