"""Whether a drafter's slots pay in the long run, how many of them, and what a guess in hand is worth.

A model of two states, with a guess in hand or without: in each the best round is taken, and leaves a guess or none.
Policy iteration finds the rounds with the most tokens per millisecond for every block size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.sampling.cost_model import RoundCosts
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
    costs: RoundCosts,
    reach: Sequence[float],
    block_sizes: Sequence[int],
    *,
    rate: float = 0.0,
    row_ms: float = 0.0,
    max_rows: int = MAX_DECODE_ROWS,
) -> SlotPlan:
    """The best plan for slots whose guesses are accepted with the chances ``reach``.

    ``rate`` is the going rate where other drafts make it higher than slots alone would (0: they do not). A round has at
    most ``max_rows`` rows.
    """
    terms = Terms(costs, rate, 1, row_ms, max_rows)
    plans = [_plan_size(terms, reach, size) for size in block_sizes]
    return max(plans, key=lambda plan: plan.rate)


def _plan_size(going: Terms, reach: Sequence[float], size: int) -> SlotPlan:
    rate, longest = going.rate, min(size, going.max_rows - 1)
    terms = replace(going, rate=0.0)
    without, having = value_alone(terms, reach, 0), value_alone(terms, reach, longest)
    slots_rate = _long_run_rate(without, having)
    worth = _worth(without, having, max(slots_rate, rate))
    for _ in range(_MOST_ITERATIONS):
        before = (without.groups, having.length, having.groups)
        terms = replace(going, rate=max(slots_rate, rate))
        without = with_slots(terms, value_alone(terms, reach, 0), reach, size, worth)
        rounds = (with_slots(terms, value_alone(terms, reach, n), reach, size, worth) for n in range(longest + 1))
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
