"""How many masks an answer begins with: given, or searched for where text stands behind it.

A model that is denoised as a whole must be told how long a gap is. Its confidence in a gap of masks, before anything
is denoised, peaks near the right length, once the general fall of confidence with length is divided out: CAL, arXiv
2602.00476. The search climbs over powers of two and then looks between the neighbours of the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

from diffusion_core.requests import CanvasCache
from diffusion_core.sampling.asking import Asking
from diffusion_core.sampling.canvas import Canvas, CanvasForward
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.sequence import DecodingSequence

_START = 8
# Lengths in a row that are no better before a direction is given up.
_PATIENCE = 2


class AnswerLength(Protocol):
    """Settles on the number of masks."""

    def step(self, sequence: DecodingSequence) -> Asking[int | None]:
        """The length; None: a forward was spent on the search, which goes on."""
        ...


class GivenLength:
    """A length that is known: the budget of an answer with an open end."""

    def __init__(self, num_tokens: int) -> None:
        self._num_tokens = num_tokens

    def step(self, sequence: DecodingSequence) -> Asking[int | None]:
        """The length, at once."""
        yield from ()
        return self._num_tokens


class LengthSearch:
    """Tries lengths of at most ``max_tokens``, a forward each.

    With ``keeps_prompt`` the prompt's keys are those of the first forward: an approximation, most of the work less.
    """

    def __init__(self, chooser: TokenChooser, *, max_tokens: int, keeps_prompt: bool = False) -> None:
        self._chooser, self._keeps_prompt = chooser, keeps_prompt
        self.scores: dict[int, float] = {}
        self._candidates = climb(max_tokens, self.scores)
        self._forward: CanvasForward | None = None

    def step(self, sequence: DecodingSequence) -> Asking[int | None]:
        """Try the next length, or give the best."""
        length = next(self._candidates, None)
        if length is None:
            return best_of(self.scores)
        if self._forward is None:
            kind = CanvasCache.PREFIX if self._keeps_prompt else CanvasCache.NONE
            self._forward = CanvasForward(sequence, kind)
        canvas = Canvas.around(sequence, length)
        logits = self._chooser.allow((yield from self._forward.logits(canvas, canvas.window)))
        self.scores[length] = float(logits.softmax(-1).amax(-1).mean()) / length_bias(length)
        return None


def best_of(scores: Mapping[int, float]) -> int:
    """The length with the highest score, the shortest of equals."""
    return max(sorted(scores), key=lambda length: scores[length])


def climb(max_tokens: int, scores: Mapping[int, float]) -> Iterator[int]:
    """The lengths to try one after the other; the caller puts each one's score into ``scores`` before it goes on."""
    ladder = sorted({*(2**i for i in range(max_tokens.bit_length())), max_tokens})
    start = min(_START, max_tokens)
    yield start
    for way in ([n for n in ladder if n > start], [n for n in reversed(ladder) if n < start]):
        misses = 0
        for length in way:
            yield length
            misses = 0 if best_of(scores) == length else misses + 1
            if misses == _PATIENCE:
                break
    best = best_of(scores)
    below = max((n for n in scores if n < best), default=best)
    above = min((n for n in scores if n > best), default=best)
    for middle in ((below + best) // 2, (best + above) // 2):
        if middle not in scores:
            yield middle


def length_bias(length: int) -> float:
    """How confident models are in a gap of that many masks whatever belongs there; fitted in CAL's appendix A.

    One curve for Dream-Coder, DiffuCoder and LLaDA there, and so for their relatives here.
    """
    return math.exp(-1.77 * length) + 0.56 * math.exp(-0.06 * length) + 0.24
