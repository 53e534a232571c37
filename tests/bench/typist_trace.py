"""How a person types a source: pauses between keys, longer ones at words and lines, now and then a thought.

Pauses are drawn (log-normal, as typing is) from a seed, so that a trace is the same in every run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

MEDIAN_KEY_S = 0.11
SPREAD = 0.45
WORD_FACTOR, LINE_FACTOR = 1.6, 4.0
PREFIX_CHARACTERS, SUFFIX_CHARACTERS = 1500, 500
PREFIX_STEP = 1000  # the window moves in steps, as an editor's does: from key to key its beginning stays


class Act(StrEnum):
    """What an editor asks of the engine at a moment."""

    COMPLETE = "complete"
    WARM = "warm"
    EDIT = "edit"
    THINK = "think"  # nothing, for a while: the answer that is under way gets the time to come


@dataclass(frozen=True)
class Moment:
    """After ``pause_s``, with ``prefix`` before the cursor and ``suffix`` behind it."""

    pause_s: float
    act: Act
    prefix: str
    suffix: str


def trace(source: str, seed: int) -> Iterator[Moment]:
    """Moments without end: the source is typed from somewhere to its end, then again from elsewhere."""
    rng = random.Random(seed)
    while True:
        at = rng.randint(200, len(source) * 3 // 4)
        for position in range(at, len(source)):
            key = source[position - 1]
            factor = LINE_FACTOR if key == "\n" else WORD_FACTOR if key in " .,:(" else 1.0
            dice = rng.random()
            act = Act.THINK if dice < 0.04 else Act.WARM if dice < 0.06 else Act.EDIT if dice < 0.07 else Act.COMPLETE
            yield Moment(
                MEDIAN_KEY_S * factor * rng.lognormvariate(0.0, SPREAD),
                act,
                source[max(0, position - PREFIX_CHARACTERS) // PREFIX_STEP * PREFIX_STEP : position],
                source[position : position + SUFFIX_CHARACTERS],
            )
            if rng.random() < 0.01:
                break  # another place in the file
