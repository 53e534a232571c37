"""The block decoder: one answer from a prompt, one forward at a time.

A generator, so that the engine decides between any two forwards whether to go on, and who shares one: a cancel costs at
most the forward that is running. The text is decoded and the stop rules are checked token by token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from diffusion_core.model.config import AttentionPattern
from diffusion_core.requests import DecodingParams, FinishReason, Policy, SamplingParams
from diffusion_core.sampling.asking import Decoding, progress_of
from diffusion_core.sampling.canvas_settings import make_canvas_policy
from diffusion_core.sampling.choice_watch import ChoiceWatch
from diffusion_core.sampling.costed_rounds import CostedRounds, RoundModel
from diffusion_core.sampling.departures import DepartureRecorder
from diffusion_core.sampling.draft_statistics import SLOTS, DraftKind
from diffusion_core.sampling.drafts import DraftSource
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.fixed_rounds import FixedRounds
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.parallel import ParallelPolicy
from diffusion_core.sampling.policy import LOSSLESS, DecodingPolicy, Step, resolve_policy
from diffusion_core.sampling.rounds import MAX_SLOT_ROWS, RoundPlanner, RoundShape
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.size_times import choose_block
from diffusion_core.sampling.slot_plan import SlotPlan
from diffusion_core.sampling.stop import LEAST_LOOP, LONGEST_LOOP, Stop, StopRule, find_repetition, has_loop
from diffusion_core.sampling.unmask import select_by_confidence, select_fixed
from diffusion_core.sampling.verified import AutoregressivePolicy, VerifiedPolicy

DEFAULT_BLOCK_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class DecodingTask:
    """Everything that decides an answer. ``max_tokens`` bounds the committed tokens.

    ``original`` is the text that an edit starts from: what loops there may loop in the answer.
    ``round_shape`` is for `verified` where costs are not known; ``name`` tells kinds of task apart in what is learned.
    """

    max_tokens: int
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_rules: tuple[StopRule, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    banned_token_ids: tuple[int, ...] = ()
    original: tuple[int, ...] = ()
    round_shape: RoundShape = RoundShape.TWO_PASS
    name: str = ""


@dataclass
class Answer:
    """The text so far. ``finish_reason`` is None while decoding goes on."""

    text: str = ""
    num_tokens: int = 0
    finish_reason: FinishReason | None = None


@dataclass(slots=True)
class Progress:
    """State after a forward: the settled text, and the tokens of the draft that may still change.

    ``step`` is what the forward came to; None while the prompt is computed.
    """

    num_prefilled: int
    settled: str
    draft: list[int]
    step: Step | None = None


class BlockDecoder:
    """Decodes one task over one sequence. Iterate :meth:`run`; then :attr:`answer` is complete.

    ``rounds`` is what earlier tasks of the same model taught about drafts, and what its forwards cost; this one adds to
    it. ``recorder`` is told what else could have been chosen, ``watch`` how probable everything was.

    Raises:
        CheckpointError: the checkpoint cannot decode with the policy asked for.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tokenizer: Tokenizer,
        sequence: DecodingSequence,
        task: DecodingTask,
        sources: Sequence[DraftSource] = (),
        *,
        rounds: RoundModel | None = None,
        recorder: DepartureRecorder | None = None,
        watch: ChoiceWatch | None = None,
    ) -> None:
        self._sequence, self._task, self._tokenizer = sequence, task, tokenizer
        self._rounds = rounds or RoundModel()
        self.policy = resolve_policy(task.decoding.policy, denoiser)
        self._recorder, self._watch = recorder, watch
        self._policy = self._make_policy(denoiser, sources)
        sequence.slots_only_draft = self.policy in LOSSLESS
        self._token_starts: list[int] = []
        self._stream = DecodeStream(skip_special_tokens=True)
        self._num_read = 0
        self._loops: dict[int, bool] = {}  # whether the original has one, by its period
        self.answer = Answer()

    def _make_policy(self, denoiser: Denoiser, sources: Sequence[DraftSource]) -> DecodingPolicy:
        task, decoding = self._task, self._task.decoding
        banned = list(task.banned_token_ids)
        if denoiser.mask_id is not None and denoiser.mask_id < denoiser.model.config.vocab_size:
            banned.append(denoiser.mask_id)
        chooser = TokenChooser(task.sampling, banned, self._recorder, self._watch)
        block_size = decoding.block_size or max(denoiser.contract.block_size, 1)
        if block_size == 1 and not decoding.block_size:
            block_size = DEFAULT_BLOCK_SIZE
        if denoiser.contract.attention is AttentionPattern.BIDIRECTIONAL:
            return make_canvas_policy(
                self.policy, decoding, chooser, denoiser.contract,
                max_tokens=task.max_tokens, fills_in=bool(self._sequence.suffix), stop_ids=task.stop_token_ids,
            )  # fmt: skip
        match self.policy:
            case Policy.AUTOREGRESSIVE:
                return AutoregressivePolicy(chooser)
            case Policy.VERIFIED:
                return VerifiedPolicy(
                    chooser,
                    sources,
                    self._plan_rounds(min(block_size, MAX_SLOT_ROWS)),
                    statistics=self._rounds.statistics,
                    use_slots=decoding.use_mask_drafts,
                )
            case Policy.CONFIDENCE:
                tau, tau_low = decoding.tau, decoding.tau_low
                return ParallelPolicy(
                    chooser,
                    block_size=block_size,
                    select=lambda confidence, is_masked: select_by_confidence(confidence, is_masked, tau),
                    tau_low=tau_low,
                    stop_token_ids=task.stop_token_ids,
                )
            case _:
                count = decoding.num_per_step
                return ParallelPolicy(
                    chooser,
                    block_size=block_size,
                    select=lambda confidence, is_masked: select_fixed(confidence, is_masked, count),
                    stop_token_ids=task.stop_token_ids,
                )

    def _plan_rounds(self, block_size: int) -> RoundPlanner:
        """By costs where they are known, else the fixed shape of the task."""
        task, rounds = self._task, self._rounds
        may_choose = not task.decoding.block_size
        if rounds.costs is None:
            shape = task.round_shape
            if rounds.size_ms and may_choose and shape is RoundShape.ALL_LENGTHS and self._sequence.denoiser.has_slots:
                reach = rounds.statistics.reach(DraftKind(SLOTS))
                block_size = choose_block(block_size, rounds.size_ms, reach)
                rounds.plan = SlotPlan(block_size, shape, worth=0.0, rate=0.0)
            return FixedRounds(rounds.acceptance, shape=shape, block_size=block_size)
        return CostedRounds(rounds, rounds.costs, block_size=block_size, may_choose_size=may_choose, task=task.name)

    def run(self) -> Iterator[Progress]:
        """:meth:`decode`, each forward by itself; yields after every one."""
        return progress_of(self.decode())

    def decode(self) -> Decoding[Progress]:
        """Prefill, then denoise until a stop rule, a stop token or the budget ends the answer.

        Yields what it wants evaluated and is sent the outcome; yields progress after every forward.
        """
        while rows := (yield from self._sequence.prefill_piece()):
            yield Progress(rows, "", [])
        while self.answer.finish_reason is None:
            step = yield from self._policy.step(self._sequence)
            self._read(step.accepted)
            if step.is_final and self.answer.finish_reason is None:
                self._finish_by_model(FinishReason.STOP)
            yield Progress(0, self.answer.text, step.draft, step)

    def settled_text(self) -> str:
        """The beginning of the text that no stop rule can cut off any more."""
        text = self.answer.text
        if self.answer.finish_reason is not None:
            return text
        return text[: min((rule.settled(text) for rule in self._task.stop_rules), default=len(text))]

    def replay(self, tokens: Sequence[int]) -> None:
        """Take the sequence's first answer tokens as given, before :meth:`run`."""
        self._read(tokens)

    def kept_tokens(self) -> list[int]:
        """The answer's tokens that its text shows something of, and the one that ended it if that was a token."""
        start, length = self._sequence.num_prompt, len(self.answer.text)
        num_kept = sum(begin <= length for begin in self._token_starts)
        return self._sequence.tokens[start : start + num_kept]

    def _read(self, tokens: Sequence[int]) -> None:
        """Turn committed tokens into text, one at a time, until something ends the answer."""
        for token in tokens:
            self._token_starts.append(len(self.answer.text))
            if token in self._task.stop_token_ids:
                self._finish_by_model(FinishReason.STOP)
                return
            self.answer.num_tokens += 1
            self._num_read += 1
            piece = self._stream.step(self._tokenizer, token) or ""
            self.answer.text += piece
            if piece and self._check_rules(len(piece)):
                return
            if self.answer.num_tokens >= self._task.max_tokens:
                self._finish_by_model(FinishReason.LENGTH)
                return
            if self._check_repetition():
                return

    def _check_rules(self, num_new: int) -> bool:
        for rule in self._task.stop_rules:
            if stop := rule.check(self.answer.text, num_new):
                self._finish(stop.keep, stop.reason)
                return True
        return False

    def _finish_by_model(self, reason: FinishReason) -> None:
        """End the answer with all of its text, unless a rule waited for what comes behind it: now nothing does."""
        text = self.answer.text
        ends = (rule.check_end(text) for rule in self._task.stop_rules)
        stop = next(filter(None, ends), Stop(len(text), reason))
        self._finish(stop.keep, stop.reason)

    def _check_repetition(self) -> bool:
        if self._num_read < LEAST_LOOP:
            return False
        tokens, start = self._sequence.tokens, self._sequence.num_prompt
        end = start + self._num_read
        period = find_repetition(tokens[max(start, end - LONGEST_LOOP) : end])
        if period is None or self._may_loop(period):
            return False
        answer = tokens[start:end]
        # Keep one round of the loop: walk back while the token equals the one a period earlier.
        keep = len(answer)
        while keep > period and answer[keep - 1] == answer[keep - 1 - period]:
            keep -= 1
        text = self._tokenizer.decode(answer[:keep], skip_special_tokens=True)
        self._finish(len(text), FinishReason.REPETITION)
        return True

    def _may_loop(self, period: int) -> bool:
        """Whether the text that is edited has a loop of that period: a table of equal numbers, for one.

        A loop that never ends is then ended by the budget.
        """
        if period not in self._loops:
            self._loops[period] = has_loop(self._task.original, period)
        return self._loops[period]

    def _finish(self, keep: int, reason: FinishReason) -> None:
        self.answer.text = self.answer.text[:keep]
        self.answer.finish_reason = reason

    def interrupt(self, reason: FinishReason) -> None:
        """End the answer where it is: the deadline came or the caller left."""
        if self.answer.finish_reason is None:
            self.answer.finish_reason = reason
