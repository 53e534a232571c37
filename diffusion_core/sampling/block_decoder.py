"""The block decoder: one answer from a prompt, one forward at a time.

A generator, so that the engine decides between any two forwards whether to go on: a cancel costs at most the forward
that is running. The text is decoded and the stop rules are checked token by token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from diffusion_core.requests import DecodingParams, FinishReason, Policy, SamplingParams
from diffusion_core.sampling.acceptance import Acceptance
from diffusion_core.sampling.departures import DepartureRecorder
from diffusion_core.sampling.drafts import DraftSource
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.logits import TokenChooser
from diffusion_core.sampling.parallel import ParallelPolicy
from diffusion_core.sampling.policy import DecodingPolicy, resolve_policy
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.sampling.stop import StopRule, find_repetition
from diffusion_core.sampling.unmask import select_by_confidence, select_fixed
from diffusion_core.sampling.verified import AutoregressivePolicy, RoundShape, VerifiedPolicy

DEFAULT_BLOCK_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class DecodingTask:
    """Everything that decides an answer. ``max_tokens`` bounds the committed tokens."""

    max_tokens: int
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_rules: tuple[StopRule, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    banned_token_ids: tuple[int, ...] = ()
    round_shape: RoundShape = RoundShape.TWO_PASS


@dataclass
class Answer:
    """The text so far. ``finish_reason`` is None while decoding goes on."""

    text: str = ""
    num_tokens: int = 0
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """State after a forward: the settled text, and the tokens of the draft that may still change."""

    num_prefilled: int
    settled: str
    draft: list[int]


class BlockDecoder:
    """Decodes one task over one sequence. Iterate :meth:`run`; then :attr:`answer` is complete.

    ``acceptance`` is what earlier tasks of the same model taught about drafts; this one adds to it. ``recorder`` is
    told what else could have been chosen.

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
        acceptance: Acceptance | None = None,
        recorder: DepartureRecorder | None = None,
    ) -> None:
        self._sequence, self._task, self._tokenizer = sequence, task, tokenizer
        self._acceptance = acceptance
        self.policy = resolve_policy(task.decoding.policy, denoiser)
        self._recorder = recorder
        self._policy = self._make_policy(denoiser, sources)
        self._token_starts: list[int] = []
        self._stream = DecodeStream(skip_special_tokens=True)
        self._num_read = 0
        self.answer = Answer()

    def _make_policy(self, denoiser: Denoiser, sources: Sequence[DraftSource]) -> DecodingPolicy:
        task, decoding = self._task, self._task.decoding
        banned = list(task.banned_token_ids)
        if denoiser.mask_id is not None and denoiser.mask_id < denoiser.model.config.vocab_size:
            banned.append(denoiser.mask_id)
        chooser = TokenChooser(task.sampling, banned, self._recorder)
        block_size = decoding.block_size or max(denoiser.contract.block_size, 1)
        if block_size == 1 and not decoding.block_size:
            block_size = DEFAULT_BLOCK_SIZE
        match self.policy:
            case Policy.AUTOREGRESSIVE:
                return AutoregressivePolicy(chooser)
            case Policy.VERIFIED:
                return VerifiedPolicy(
                    chooser,
                    sources,
                    block_size=block_size,
                    shape=task.round_shape,
                    use_slots=decoding.use_mask_drafts,
                    max_rows=denoiser.max_round_rows,
                    acceptance=self._acceptance,
                )
            case Policy.CONFIDENCE:
                tau, tau_low = decoding.tau, decoding.tau_low
                return ParallelPolicy(
                    chooser,
                    block_size=block_size,
                    select=lambda confidence, is_masked: select_by_confidence(confidence, is_masked, tau),
                    tau_low=tau_low,
                )
            case _:
                count = decoding.num_per_step
                return ParallelPolicy(
                    chooser,
                    block_size=block_size,
                    select=lambda confidence, is_masked: select_fixed(confidence, is_masked, count),
                )

    def run(self) -> Iterator[Progress]:
        """Prefill, then denoise until a stop rule, a stop token or the budget ends the answer; yields per forward."""
        for rows in self._sequence.prefill():
            yield Progress(rows, "", [])
        while self.answer.finish_reason is None:
            step = self._policy.step(self._sequence)
            self._read(step.accepted)
            yield Progress(0, self.answer.text, step.draft)

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
                self._finish(len(self.answer.text), FinishReason.STOP)
                return
            self.answer.num_tokens += 1
            self._num_read += 1
            piece = self._stream.step(self._tokenizer, token) or ""
            self.answer.text += piece
            if piece and self._check_rules(len(piece)):
                return
            if self.answer.num_tokens >= self._task.max_tokens:
                self._finish(len(self.answer.text), FinishReason.LENGTH)
                return
            if self._check_repetition():
                return

    def _check_rules(self, num_new: int) -> bool:
        for rule in self._task.stop_rules:
            if stop := rule.check(self.answer.text, num_new):
                self._finish(stop.keep, stop.reason)
                return True
        return False

    def _check_repetition(self) -> bool:
        start = self._sequence.num_prompt
        answer = self._sequence.tokens[start : start + self._num_read]
        period = find_repetition(answer)
        if period is None:
            return False
        # Keep one round of the loop: walk back while the token equals the one a period earlier.
        keep = len(answer)
        while keep > period and answer[keep - 1] == answer[keep - 1 - period]:
            keep -= 1
        text = self._tokenizer.decode(answer[:keep], skip_special_tokens=True)
        self._finish(len(text), FinishReason.REPETITION)
        return True

    def _finish(self, keep: int, reason: FinishReason) -> None:
        self.answer.text = self.answer.text[:keep]
        self.answer.finish_reason = reason

    def interrupt(self, reason: FinishReason) -> None:
        """End the answer where it is: the deadline came or the caller left."""
        if self.answer.finish_reason is None:
            self.answer.finish_reason = reason
