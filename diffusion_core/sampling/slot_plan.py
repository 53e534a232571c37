"""Whether a drafter's slots pay in the long run, how many of them, and what a guess in hand is worth.

A model of two states, with a guess in hand or without: in each the best round is taken, and leaves a guess or none.
Policy iteration finds the rounds with the most tokens per millisecond for every block size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.round_value import Choice, Terms, value_alone, with_slots
from diffusion_core.sampling.rounds import RoundShape

_MOST_ITERATIONS = 6


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """``block_size`` slots, as ``shape`` says (None: one token a forward is faster, if no free draft is at hand).

    ``worth`` is what a guess in hand is worth, in tokens; ``rate`` is tokens per millisecond with slots alone.
    """

    block_size: int
    shape: RoundShape | None
    worth: float
    rate: float


def plan_slots(
    costs: CostModel, reach: Sequence[float], block_sizes: Sequence[int], *, rate: float = 0.0, row_ms: float = 0.0
) -> SlotPlan:
    """The best plan for slots whose guesses are accepted with the chances ``reach``.

    ``rate`` is the going rate where other drafts make it higher than slots alone would (0: they do not).
    """
    plans = [_plan_size(costs, reach, size, rate, row_ms) for size in block_sizes]
    return max(plans, key=lambda plan: plan.rate)


def _plan_size(costs: CostModel, reach: Sequence[float], size: int, rate: float, row_ms: float) -> SlotPlan:
    terms = Terms(costs, 0.0, 1, row_ms)
    without, having = value_alone(terms, reach, 0), value_alone(terms, reach, size)
    slots_rate = _long_run_rate(without, having)
    worth = _worth(without, having, max(slots_rate, rate))
    for _ in range(_MOST_ITERATIONS):
        before = (without.groups, having.length, having.groups)
        terms = Terms(costs, max(slots_rate, rate), 1, row_ms)
        without = with_slots(terms, value_alone(terms, reach, 0), reach, size, worth)
        rounds = (with_slots(terms, value_alone(terms, reach, n), reach, size, worth) for n in range(size + 1))
        having = max(rounds, key=lambda each: each.value)
        slots_rate = _long_run_rate(without, having)
        worth = _worth(without, having, max(slots_rate, rate))
        if before == (without.groups, having.length, having.groups):
            break
    return SlotPlan(size, _shape(without, having), max(worth, 0.0), slots_rate)


def _long_run_rate(without: Choice, having: Choice) -> float:
    """Tokens per millisecond when each state takes its round, by the time spent in each."""
    share = without.leaves / (1 + without.leaves - having.leaves) if without.leaves else 0.0
    tokens = (1 - share) * without.tokens + share * having.tokens
    return tokens / ((1 - share) * without.ms + share * having.ms)


def _worth(without: Choice, having: Choice, rate: float) -> float:
    """How many tokens more a start with a guess in hand gives, in the long run."""
    gain = (having.tokens - rate * having.ms) - (without.tokens - rate * without.ms)
    return gain / (1 - having.leaves + without.leaves) if having.leaves < 1 or without.leaves else gain


def _shape(without: Choice, having: Choice) -> RoundShape | None:
    if not without.leaves:
        return None
    if not having.groups:
        return RoundShape.TWO_PASS
    return RoundShape.OPTIMISTIC if len(having.groups) == 1 else RoundShape.ALL_LENGTHS
