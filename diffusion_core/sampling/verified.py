"""The lossless policies: `autoregressive`, and `verified`, which gives the very same text in fewer forwards.

A round of `verified` evaluates the pending tokens and a draft as clean causal rows. The logits of each row say which
token the model would choose after it; the draft is accepted as far as it agrees, and the first row behind it adds
the model's own token. Where drafts come from (lookup, selection, slots of a drafter, draft head) cannot change the
text, only the number of forwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import torch

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.masks import round_mask
from diffusion_core.sampling.acceptance import count_agreeing
from diffusion_core.sampling.asking import Asking, Evaluated, ask_best, ask_guesses, ask_scores
from diffusion_core.sampling.draft_statistics import DraftStatistics
from diffusion_core.sampling.drafts import OUTLOOK, OUTLOOK_SUPPORT, Draft, DraftSource
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.policy import Step
from diffusion_core.sampling.rounds import Round, RoundPlanner, Situation
from diffusion_core.sampling.sequence import DecodingSequence


class AutoregressivePolicy:
    """One token a forward: the reference."""

    def __init__(self, chooser: TokenChooser) -> None:
        self._chooser = chooser

    def step(self, sequence: DecodingSequence) -> Asking[Step]:
        """Evaluate the pending tokens; their last row gives the next token."""
        pending = sequence.pending
        found = yield from sequence.forward(pending, num_clean=len(pending), wants_best=self._chooser.is_plain)
        sequence.keep(len(pending), found.tapped)
        n, last = len(sequence.tokens), len(pending) - 1
        if found.best:
            token = yield from allowed_best(self._chooser, sequence.denoiser, found, range(last, last + 1), n)
        else:
            token = yield from ask_tokens(self._chooser, sequence.denoiser, found.hidden[last:], range(n, n + 1))
        sequence.tokens += token
        return Step(token, [])


def ask_tokens(
    chooser: TokenChooser, denoiser: Denoiser, hidden: torch.Tensor, positions: Sequence[int]
) -> Asking[list[int]]:
    """The chooser's tokens of rows ``hidden`` [R, D], which speak of ``positions`` [R]."""
    if chooser.is_plain and denoiser.captured is None:
        best = yield from ask_best(denoiser, hidden)
        if chooser.takes(best):
            return best
    scores = yield from ask_scores(denoiser, hidden)
    return chooser.choose(scores, positions)


def allowed_best(
    chooser: TokenChooser, denoiser: Denoiser, found: Evaluated, rows: range, first: int
) -> Asking[list[int]]:
    """The best tokens that a round took of ``rows``, which speak of the positions from ``first`` on.

    In place of banned ones the chooser's. Rows whose best token is allowed keep it, whatever the others are: scores
    that are computed apart may round otherwise, and a row's token must not depend on its company.
    """
    tokens = found.best[rows.start : rows.stop]
    if chooser.takes(tokens):
        return tokens
    banned = [i for i, token in enumerate(tokens) if not chooser.takes((token,))]
    scores = yield from ask_scores(denoiser, found.hidden[[rows[i] for i in banned]])
    for i, token in zip(banned, chooser.choose(scores, [first + i for i in banned]), strict=True):
        tokens[i] = token
    return tokens


class VerifiedPolicy:
    """Accepts the longest part of a draft that the clean causal rows choose too.

    ``planner`` chooses which draft, and where slots of the checkpoint's drafter ride along (``use_slots``);
    ``statistics`` is told what became of all drafts.
    """

    def __init__(
        self,
        chooser: TokenChooser,
        sources: Sequence[DraftSource],
        planner: RoundPlanner,
        *,
        statistics: DraftStatistics | None = None,
        use_slots: bool = True,
    ) -> None:
        self._chooser, self._sources, self._planner = chooser, sources, planner
        self._statistics = statistics or DraftStatistics()
        self._use_slots = use_slots
        self._slot_draft: list[int] = []
        self._free: list[Draft] | None = None  # of the present place, when it was asked for already

    def step(self, sequence: DecodingSequence) -> Asking[Step]:
        """One round, in one forward."""
        slots, self._slot_draft = self._slot_draft, []
        if sequence.outlook is not None:
            promised = yield from self._read_outlook(sequence, sequence.outlook)
            self._free = [*self._ask_sources(), promised]
            sequence.outlook = None
        situation = self._situation(sequence, slots)
        chosen = self._planner.choose(situation)
        begin = time.perf_counter()
        pending = sequence.pending
        found = yield from self._forward(sequence, pending + chosen.draft, chosen, len(pending))
        text = yield from self._judge(sequence, chosen, found, len(pending))
        ms = (time.perf_counter() - begin) * 1000
        self._statistics.count_round(chosen.source, len(chosen.draft), len(text))
        # What others' rows took beside these says nothing about rounds of this size.
        says_cost = self._chooser.is_plain and found.num_sequences == 1
        sequence.denoiser.later(partial(self._learn, situation, chosen, text, ms if says_cost else None))
        if situation.has_head:
            self._slot_draft = self._ask_head(sequence)
        return Step(text, self._slot_draft, judged=chosen.draft, source=chosen.source)

    def _learn(self, situation: Situation, chosen: Round, text: list[int], ms: float | None) -> None:
        self._statistics.learn(situation.slots, situation.free, text)
        self._planner.observe(situation, chosen, text, ms)

    def _situation(self, sequence: DecodingSequence, slots: list[int]) -> Situation:
        denoiser = sequence.denoiser
        if self._free is None:
            self._free = self._ask_sources()
        has_head = denoiser.draft_head is not None
        return Situation(
            slots=slots,
            free=self._free,
            num_pending=len(sequence.tokens) - sequence.cache.length,
            num_keys=sequence.cache.length,
            has_slots=self._use_slots and denoiser.has_slots,
            has_head=self._use_slots and has_head,
            max_rows=min(denoiser.max_round_rows or MAX_DECODE_ROWS, sequence.fair_rows),
            company=sequence.company,
            sizes=denoiser.round_sizes if sequence.company == 1 else (),
        )

    def _ask_sources(self) -> list[Draft]:
        drafts = [source.propose(self._planner.draft_limit) for source in self._sources]
        return [draft for draft in drafts if draft.tokens]

    def _read_outlook(self, sequence: DecodingSequence, outlook: torch.Tensor) -> Asking[Draft]:
        """What the end of the prompt's own forward promises: its last row, and the slots behind it."""
        n = len(sequence.tokens)
        rows = outlook if self._use_slots and not self._guesses_apart(sequence) else outlook[:1]
        tokens = yield from ask_tokens(self._chooser, sequence.denoiser, rows, range(n, n + len(rows)))
        if self._use_slots and len(rows) < len(outlook):
            tokens += yield from self._guess(sequence, outlook[1:], n + 1)
        return Draft(tokens, OUTLOOK_SUPPORT, OUTLOOK)

    def _guesses_apart(self, sequence: DecodingSequence) -> bool:
        """Whether the drafter's own head reads slots: what is drawn by chance is drawn from all tokens."""
        return self._chooser.is_greedy and sequence.denoiser.guesses_apart

    def _guess(self, sequence: DecodingSequence, hidden: torch.Tensor, first: int) -> Asking[list[int]]:
        """Tokens of slots [R, D] for the positions from ``first`` on, by the drafter's own head."""
        watch = self._chooser.watch
        if watch is None:
            return (yield from ask_guesses(sequence.denoiser, hidden))
        tokens, sure = sequence.denoiser.guess_surely(hidden)
        watch.note_guesses(first, tokens, sure)
        return tokens

    def _judge(
        self, sequence: DecodingSequence, chosen: Round, found: Evaluated, num_pending: int
    ) -> Asking[list[int]]:
        """Commit what a round accepts; leaves the next draft where slots rode behind that."""
        draft, n = chosen.draft, len(sequence.tokens)
        first, num_clean = num_pending - 1, num_pending + len(draft)
        hidden, guesses_apart = found.hidden, self._guesses_apart(sequence)
        # The device of captured rounds is waited for: where no row needs noise of its own, slots are read together with
        # the verdict, in one wait.
        reads_all = bool(chosen.groups) and self._chooser.is_plain and sequence.denoiser.captured is not None
        scores_slots = bool(chosen.groups) and chosen.scores_slots and not guesses_apart
        if found.best:
            # The round took them itself, slots and all.
            rows = range(first, len(found.best) if reads_all else num_clean)
            tokens = yield from allowed_best(self._chooser, sequence.denoiser, found, rows, n)
        elif not (scores_slots or reads_all):
            rows = range(n, n + len(draft) + 1)
            tokens = yield from ask_tokens(self._chooser, sequence.denoiser, hidden[first:num_clean], rows)
        else:
            logits = yield from ask_scores(sequence.denoiser, hidden[first:])
            num_read = len(logits) if reads_all else len(draft) + 1
            tokens = self._chooser.choose(logits[:num_read], range(n, n + num_read))
        accepted = count_agreeing(draft, tokens)
        text = tokens[: accepted + 1]
        sequence.keep(num_pending + accepted, found.tapped)
        self._commit(sequence, text)
        if accepted in chosen.groups:
            # The slots of the group that saw exactly the kept rows. They begin at the position of the token that this
            # round added, so their (shifted) logits speak of the positions behind that token.
            start, size = chosen.groups.index(accepted) * chosen.block_size, chosen.block_size
            if reads_all:
                self._slot_draft = tokens[len(draft) + 1 :][start : start + size]
                return text
            if guesses_apart:
                behind = hidden[num_clean:][start : start + size]
                self._slot_draft = yield from self._guess(sequence, behind, len(sequence.tokens))
                return text
            if scores_slots:
                behind = logits[len(draft) + 1 :][start : start + size]
            else:
                behind = yield from ask_scores(sequence.denoiser, hidden[num_clean:][start : start + size])
            end = len(sequence.tokens)
            self._slot_draft = self._chooser.choose(behind, range(end, end + size))
        return text

    def _ask_head(self, sequence: DecodingSequence) -> list[int]:
        """A draft by the draft head, which has read every token in the cache; the newest token is its anchor."""
        head, cache, carried = sequence.denoiser.draft_head, sequence.cache.head, sequence.cache.carried
        assert head is not None and cache is not None and carried is not None
        num_tokens = self._planner.choose_head_draft(self._situation(sequence, []))
        if not num_tokens:
            return []
        sequence.num_head_calls += 1
        with torch.inference_mode():
            return head.draft(sequence.denoiser.model, sequence.tokens[-1], carried, num_tokens, cache)

    def _forward(
        self, sequence: DecodingSequence, clean: list[int], chosen: Round, num_pending: int
    ) -> Asking[Evaluated]:
        """Clean rows, then one group of mask slots for each accepted length of the round's groups."""
        if not chosen.groups:
            return (yield from sequence.forward(clean, num_clean=len(clean), wants_best=self._chooser.is_plain))
        mask_id, size, first = sequence.denoiser.mask_id, chosen.block_size, sequence.cache.length
        assert mask_id is not None
        group_sees = tuple(num_pending + length for length in chosen.groups)
        positions = [*range(first, first + len(clean))]
        for sees in group_sees:
            positions += range(first + sees, first + sees + size)
        return (
            yield from sequence.forward(
                clean + [mask_id] * (size * len(group_sees)),
                num_clean=len(clean),
                positions=positions,
                visible=round_mask(len(clean), size, group_sees),
                first_slot=len(clean),
                wants_best=self._chooser.is_plain,
            )
        )

    def _commit(self, sequence: DecodingSequence, tokens: list[int]) -> None:
        sequence.tokens += tokens
        self._free = None
        for source in self._sources:
            source.observe(tokens)
