"""Which kind of example comes when, and which example of that kind: closed form in (seed, number of the draw).

Draws are dealt in cycles. Each cycle holds every kind in proportion to its weight, in an order of its own; the n-th
draw of a kind takes the n-th entry of a shuffled list, shuffled anew each epoch. So a run resumes at any step
without a state, and no example comes twice before all of its kind have come.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from diffusion_core.errors import ConfigError
from train.data.examples import EDIT_KINDS, ExampleKind

CYCLE = 1000
_GROUPS: dict[str, tuple[ExampleKind, ...]] = {
    "infill": tuple(kind for kind in ExampleKind if kind.value.startswith("infill_")),
    "edit": tuple(sorted(EDIT_KINDS)),
}


def resolve_mixture(mixture: Mapping[str, float], available: Mapping[ExampleKind, int]) -> dict[ExampleKind, float]:
    """Weight of every kind, of sum 1. An empty mixture takes every kind as often as the corpus has it.

    A name is a kind, or ``infill`` or ``edit`` for all of these together, as often as the corpus has them.

    Raises:
        ConfigError: an unknown name (the nearest is named), a negative weight, or nothing left to draw from.
    """
    if not mixture:
        weights = {kind: float(number) for kind, number in available.items() if number}
    else:
        weights = {}
        for name, weight in mixture.items():
            if weight < 0:
                raise ConfigError(f"mixture.{name} is {weight}: at least 0")
            kinds = [kind for kind in _kinds_of(name) if available.get(kind)]
            if weight and not kinds:
                raise ConfigError(f"mixture.{name} is {weight}, but the corpus holds no such example")
            total = sum(available[kind] for kind in kinds)
            for kind in kinds:
                weights[kind] = weights.get(kind, 0.0) + weight * available[kind] / total
    weights = {kind: weight for kind, weight in weights.items() if weight > 0}
    if not weights:
        raise ConfigError("mixture: every weight is 0")
    return {kind: weight / sum(weights.values()) for kind, weight in weights.items()}


def _kinds_of(name: str) -> tuple[ExampleKind, ...]:
    if name in _GROUPS:
        return _GROUPS[name]
    known = [kind.value for kind in ExampleKind] + list(_GROUPS)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"mixture: kind {name!r} is unknown; did you mean {near!r}?")
    return (ExampleKind(name),)


class MixtureOrder:
    """The order of draws. ``sizes``: how many examples each kind has."""

    def __init__(self, weights: Mapping[ExampleKind, float], sizes: Mapping[ExampleKind, int], seed: int) -> None:
        self._kinds = sorted(weights, key=list(ExampleKind).index)
        self._sizes, self._seed = dict(sizes), seed
        self._quota = _deal([weights[kind] for kind in self._kinds])
        # Caches of pure functions: the same few cycles and epochs are asked for again and again.
        self._cycle = lru_cache(maxsize=8)(self._make_cycle)
        self._epoch = lru_cache(maxsize=4 * len(self._kinds))(self._make_epoch)

    def draw(self, number: int) -> tuple[ExampleKind, int]:
        """The kind of draw ``number``, and which of its examples."""
        cycle, place = divmod(number, CYCLE)
        order, ranks = self._cycle(cycle)
        choice = int(order[place])
        kind = self._kinds[choice]
        epoch, index = divmod(cycle * self._quota[choice] + int(ranks[place]), self._sizes[kind])
        return kind, int(self._epoch(choice, epoch)[index])

    def _make_cycle(self, cycle: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Kinds of a cycle's draws, and how many of the same kind came before each inside the cycle."""
        order = np.repeat(np.arange(len(self._kinds)), self._quota)
        order = np.random.default_rng((self._seed, 1, cycle)).permutation(order)
        ranks = np.zeros(CYCLE, dtype=np.int64)
        for choice in range(len(self._kinds)):
            places = np.flatnonzero(order == choice)
            ranks[places] = np.arange(len(places))
        return order, ranks

    def _make_epoch(self, choice: int, epoch: int) -> npt.NDArray[np.int64]:
        kind = self._kinds[choice]
        number = list(ExampleKind).index(kind)
        return np.random.default_rng((self._seed, 2, number, epoch)).permutation(self._sizes[kind])


def _deal(weights: list[float]) -> list[int]:
    """``CYCLE`` draws in proportion to the weights, at least one each (largest remainders)."""
    exact = [weight * CYCLE for weight in weights]
    counts = [max(1, int(value)) for value in exact]
    while sum(counts) != CYCLE:
        step = 1 if sum(counts) < CYCLE else -1
        rest = [
            (value - count) * step if count + step >= 1 else -np.inf for value, count in zip(exact, counts, strict=True)
        ]
        counts[int(np.argmax(rest))] += step
    return counts
