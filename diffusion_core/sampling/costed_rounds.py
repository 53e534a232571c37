"""Rounds by cost and chance: of all drafts, lengths and places for slots those with the most tokens per millisecond.

The choice is a function of the measured costs, the acceptance statistics and what is at hand. A drafter that does
not pay is tried again now and then: else its figures would stay what they once were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffusion_core.sampling.acceptance import Acceptance
from diffusion_core.sampling.cost_model import CostModel
from diffusion_core.sampling.draft_statistics import MAX_OFFSETS, SLOTS, DraftStatistics, free_kind, slots_kind
from diffusion_core.sampling.round_value import Choice, Terms, best_length, value_alone, with_slots
from diffusion_core.sampling.rounds import Round, Situation
from diffusion_core.sampling.slot_plan import SlotPlan, plan_slots

# A drafter is tried at least once in so many rounds, but not in the place of a draft that promises as many tokens.
PROBE_EVERY = 96
_PROBE_BELOW = 2.5
# The going rate of time is that of about so many rounds.
_RATE_MEMORY = 0.98
_RATE_PRIOR_ROUNDS = 10.0
# How often a drafter's guess is the draft that is verified, of the times that there is one.
_USE_MEMORY = 0.95
# Guesses that are not made are not used either: without them the figure rises slowly, so that they get another chance.
_USE_RECOVERY = 0.005
# Chances change slowly, and a plan takes as long as ten choices.
_PLAN_EVERY = 32
_LENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 32)
_BLOCK_SIZES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)


@dataclass
class GoingRate:
    """Tokens and milliseconds of the rounds of one kind of task, fading; and how often guesses in hand were used."""

    tokens: float = 0.0
    ms: float = 0.0
    use_of_slots: float = 1.0

    def add(self, tokens: int, ms: float) -> None:
        """A round."""
        self.tokens = _RATE_MEMORY * self.tokens + tokens
        self.ms = _RATE_MEMORY * self.ms + ms

    def add_guess(self, is_there: bool, is_used: bool) -> None:
        """Whether a drafter's guess was in hand, and whether it was the draft that was verified."""
        if is_there:
            self.use_of_slots = _USE_MEMORY * self.use_of_slots + (1 - _USE_MEMORY) * is_used
        else:
            self.use_of_slots += _USE_RECOVERY * (1 - self.use_of_slots)

    def rate(self, slowest: float) -> float:
        """Tokens per millisecond; at first ``slowest``, that of one token a forward."""
        return (self.tokens + _RATE_PRIOR_ROUNDS) / (self.ms + _RATE_PRIOR_ROUNDS / slowest)


@dataclass
class RoundModel:
    """What is known of the rounds of one model, over all its requests.

    ``costs`` is None until they are measured; of captured rounds ``size_ms`` says instead what each size takes.
    ``plan`` is the last plan for slots, ``head_block`` what a draft head was last asked for.
    """

    acceptance: Acceptance = field(default_factory=Acceptance)
    statistics: DraftStatistics = field(default_factory=DraftStatistics)
    costs: CostModel | None = None
    size_ms: Mapping[int, float] = field(default_factory=dict)
    plan: SlotPlan | None = None
    head_block: int = 0
    rates: dict[str, GoingRate] = field(default_factory=dict)


@dataclass
class _Plan:
    plan: SlotPlan
    age: int = 0


class CostedRounds:
    """Chooses the rounds of one answer. ``task`` tells answers apart whose rounds go differently far."""

    def __init__(
        self, model: RoundModel, costs: CostModel, *, block_size: int, may_choose_size: bool = True, task: str = ""
    ) -> None:
        self._model, self._costs, self._task = model, costs, task
        sizes = [size for size in _BLOCK_SIZES if size < block_size] if may_choose_size else []
        self._sizes = (*sizes, block_size)
        self._plans: dict[int, _Plan] = {}

    @property
    def draft_limit(self) -> int:
        """As far as chances are known: how much of a draft is verified is chosen here."""
        return MAX_OFFSETS

    def choose(self, situation: Situation) -> Round:
        """The round that is worth most."""
        terms, statistics = self._terms(situation), self._model.statistics
        plan = self._current_plan(terms, situation.company) if situation.has_slots else None
        drafts: list[tuple[list[int], str, list[float]]] = [([], "", [1.0])]
        if situation.slots:
            reach = statistics.reach(slots_kind(situation.slots, situation.free))
            drafts.append((situation.slots, SLOTS, reach))
        drafts += [(d.tokens, d.source, statistics.reach(free_kind(d, situation.slots))) for d in situation.free]
        alone = [best_length(terms, reach, len(tokens)) for tokens, _, reach in drafts]
        index = max(range(len(drafts)), key=lambda each: alone[each].value)
        best = alone[index]
        is_due = statistics.rounds_since_slots >= PROBE_EVERY and not situation.slots
        size = min(self._sizes[-1], situation.max_slots(0))
        if plan is not None and is_due and best.tokens < _PROBE_BELOW and size:
            return Round([], groups=(0,), block_size=size, scores_slots=True)
        if plan is not None:
            guess = plan.block_size, plan.worth * self._going(situation.company).use_of_slots
            ways = [(c, d[2]) for c, d in zip(alone, drafts, strict=True)]
            best, index = self._add_slots(terms, guess, best, index, ways)
        draft, source, _ = drafts[index]
        size = plan.block_size if plan is not None and best.groups else 0
        return Round(draft[: best.length], source if best.length else "", best.groups, size, best.scores_slots)

    def _add_slots(
        self,
        terms: Terms,
        guess: tuple[int, float],
        best: Choice,
        index: int,
        drafts: Sequence[tuple[Choice, list[float]]],
    ) -> tuple[Choice, int]:
        """The best round of all with slots, and the index of its draft: slots may make a shorter one the best.

        ``guess`` is how many slots make one, and what it is worth.
        """
        block_size, worth = guess
        for number, (longest, reach) in enumerate(drafts):
            for length in (longest.length, *(n for n in _LENGTHS if n < longest.length)):
                alone = longest if length == longest.length else value_alone(terms, reach, length)
                if alone.value + worth <= best.value:
                    continue  # slots cannot be worth more than a guess that is sure to be there
                choice = with_slots(terms, alone, reach, block_size, worth)
                if choice.value > best.value:
                    best, index = choice, number
        return best, index

    def choose_head_draft(self, situation: Situation) -> int:
        """The block size that promises most, if that is more than the next round promises without."""
        terms, statistics, costs = self._terms(situation), self._model.statistics, self._costs
        without = best_length(terms, [1.0], 0).value
        for draft in situation.free:
            reach = statistics.reach(free_kind(draft, ()))
            without = max(without, best_length(terms, reach, len(draft.tokens)).value)
        reach = statistics.reach(slots_kind((), ()))
        values = {n: best_length(terms, reach, n).value - terms.rate * costs.drafter[n] for n in self._sizes}
        size = max(values, key=lambda n: values[n])
        if values[size] <= without and statistics.rounds_since_slots < PROBE_EVERY:
            return 0
        self._model.head_block = size
        return size

    def observe(self, situation: Situation, chosen: Round, text: Sequence[int], ms: float | None) -> None:
        """Add to the going rate, and correct the costs by the time taken."""
        size = chosen.size(
            situation.num_pending,
            situation.num_keys,
            len(text) - 1,
            has_own_head=self._costs.table.has_own_head,
        )
        expected = self._costs.shared_by(situation.company).expect(size)
        if situation.has_head and situation.slots:
            expected += self._costs.drafter[len(situation.slots)]
        going = self._going(situation.company)
        going.add(len(text), expected)
        going.add_guess(bool(situation.slots), chosen.source == SLOTS)
        if (planned := self._plans.get(situation.company)) is not None:
            planned.age += 1
        if ms is not None:
            self._costs.observe(size, ms)

    def _going(self, company: int) -> GoingRate:
        """What rounds of this kind of task give of late where so many sequences share their forwards."""
        key = self._task if company == 1 else f"{self._task} by {company}"
        return self._model.rates.setdefault(key, GoingRate())

    def _terms(self, situation: Situation) -> Terms:
        costs = self._costs.shared_by(situation.company)
        rate = self._going(situation.company).rate(1 / max(costs.body[1] + costs.head[1], 1e-9))
        return Terms(costs, rate, situation.num_pending, costs.row_ms(situation.num_keys), situation.max_rows)

    def _current_plan(self, terms: Terms, company: int) -> SlotPlan:
        planned = self._plans.get(company)
        if planned is None or planned.age >= _PLAN_EVERY:
            reach = self._model.statistics.reach(slots_kind((), ()))
            plan = plan_slots(
                terms.costs, reach, self._sizes, rate=terms.rate, row_ms=terms.row_ms, max_rows=terms.max_rows
            )
            planned = self._plans[company] = _Plan(plan)
            self._model.plan = plan
        return planned.plan
