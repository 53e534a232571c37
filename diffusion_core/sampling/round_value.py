"""What a round is worth: committed tokens, less the tokens that its time could have given, plus the draft it leaves.

``rate`` is tokens per millisecond, the going rate of time. Slots behind an accepted length cost rows, and pay when
exactly that length is accepted: then the next round has a drafter's guess, worth ``worth`` tokens more than none. So
they go behind the likeliest lengths first, and behind as many as pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.sampling.cost_model import RoundCosts
from diffusion_core.sampling.rounds import MAX_SLOT_ROWS


@dataclass(frozen=True, slots=True)
class Terms:
    """What does not depend on the round: costs, the going rate, pending rows, and what a row costs for its keys.

    ``max_rows`` bounds the rows of the round.
    """

    costs: RoundCosts
    rate: float
    num_pending: int = 1
    row_ms: float = 0.0
    max_rows: int = MAX_DECODE_ROWS


@dataclass(slots=True)
class Choice:
    """A round of ``length`` draft tokens with slots behind the accepted lengths ``groups``.

    ``tokens`` are expected to be committed in ``ms`` milliseconds; ``leaves`` is the chance that slots of the length
    that was accepted rode along.
    """

    value: float
    length: int
    groups: tuple[int, ...]
    scores_slots: bool
    tokens: float
    ms: float
    leaves: float


def value_alone(terms: Terms, reach: Sequence[float], length: int) -> Choice:
    """A round without slots."""
    costs, rows = terms.costs, terms.num_pending + length
    tokens = 1 + sum(reach[1 : length + 1])
    ms = costs.body[rows] + costs.head[length + 1] + rows * terms.row_ms
    return Choice(tokens - terms.rate * ms, length, (), False, tokens, ms, 0.0)


def best_length(terms: Terms, reach: Sequence[float], most: int) -> Choice:
    """The best round without slots that verifies up to ``most`` tokens of a draft; of equals the shortest."""
    body, head, rate, row_ms, pending = terms.costs.body, terms.costs.head, terms.rate, terms.row_ms, terms.num_pending
    best, length, tokens = -1e30, 0, 1.0
    for n in range(max(0, min(most, len(reach) - 1, terms.max_rows - pending)) + 1):
        tokens += reach[n] if n else 0.0
        value = tokens - rate * (body[pending + n] + head[n + 1] + (pending + n) * row_ms)
        if value > best:
            best, length = value, n
    return value_alone(terms, reach, length)


def with_slots(terms: Terms, alone: Choice, reach: Sequence[float], size: int, worth: float) -> Choice:
    """``alone`` with slots behind as many accepted lengths as pay; as it is where none do."""
    costs, rate, length = terms.costs, terms.rate, alone.length
    rows = terms.num_pending + length
    room = min(MAX_SLOT_ROWS, terms.max_rows - rows) // size
    if worth <= 0 or room <= 0:
        return alone
    chances = [reach[n] - reach[n + 1] for n in range(length)] + [reach[length]]
    order = sorted(range(length + 1), key=chances.__getitem__, reverse=True)[:room]
    body, head, has_own_head, row_ms = costs.body, costs.head, costs.table.has_own_head, terms.row_ms
    verdict = length + 1
    leaves, together, apart, best = 0.0, 1.0, 0.0, alone.value
    found: tuple[int, bool, float, float] | None = None  # the best round so far, for this is asked many times a round
    for count, n in enumerate(order, start=1):
        leaves += chances[n]
        slots = count * size
        more = body[rows + slots] - body[rows] + costs.slots[slots] + slots * row_ms
        if not has_own_head:
            together = head[min(verdict + slots, MAX_DECODE_ROWS)] - head[verdict]
            apart = leaves * head[size]
        more += min(together, apart)
        value = alone.value + leaves * worth - rate * more
        if value > best:
            best, found = value, (count, together <= apart, more, leaves)
    if found is None:
        return alone
    count, scores_slots, more, leaves = found
    return Choice(best, length, tuple(sorted(order[:count])), scores_slots, alone.tokens, alone.ms + more, leaves)
