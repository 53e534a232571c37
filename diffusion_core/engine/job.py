"""One request inside the engine: its answer in the making, its deadline, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from diffusion_core.callers import OWNER, Caller
from diffusion_core.engine.alternatives import Alternatives
from diffusion_core.engine.decodable import Decodable, draft_sources, encode, stop_rules
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.prompt_tokens import EncodedPrompt
from diffusion_core.engine.tracer import TraceCallback, Tracer
from diffusion_core.errors import DeadlineExceeded, RequestCancelled
from diffusion_core.prompts.edits import drop_stray_fence
from diffusion_core.requests import CompletionRequest, EditRequest, FinishReason, PreviewFrame, Result, Timings
from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.asking import Decoding, Want
from diffusion_core.sampling.block_decoder import Answer, BlockDecoder, DecodingTask, Progress
from diffusion_core.sampling.departures import DepartureRecorder
from diffusion_core.sampling.policy import LOSSLESS, resolve_policy
from diffusion_core.sampling.rounds import RoundShape
from diffusion_core.sampling.sequence import DecodingSequence

FrameCallback = Callable[[PreviewFrame], None]

# How much of the not yet confirmed text a preview shows.
_PREVIEW_TOKENS = 1024


class Job:
    """A request from its arrival to its :class:`Result`. ``future`` resolves exactly once.

    The engine's thread calls everything but :meth:`cancel`.
    """

    def __init__(
        self,
        request: Decodable,
        *,
        is_warm_up: bool = False,
        on_frame: FrameCallback | None = None,
        on_trace: TraceCallback | None = None,
        caller: Caller = OWNER,
    ) -> None:
        self.caller = caller
        self.request, self.is_warm_up, self._on_frame = request, is_warm_up, on_frame
        self._tracer = Tracer(request, on_trace) if on_trace is not None else None
        self.future: Future[Result] = Future()
        # From here on only the engine resolves it: a caller that goes away cannot do so under its feet.
        self.future.set_running_or_notify_cancel()
        self.loading: Future[LoadedModel] = Future()
        self.model: LoadedModel | None = None
        self._cancelled = threading.Event()
        self.arrived = time.perf_counter()
        self.last_turn = 0
        self._prompt: EncodedPrompt | None = None
        self._max_tokens = 0
        self._started = self._last_prefill = 0.0
        self._notice = ""
        self._num_reused = 0
        self.num_prefilled = self.cache_bytes = 0
        self._sequence: DecodingSequence | None = None
        self._decoder: BlockDecoder | None = None
        self._run: Decoding[Progress] | None = None
        self.want: Want | None = None
        self._original: AlignedDraft | None = None
        self._alternatives: Alternatives | None = None
        self._answer_forwards: int | None = None
        self._shown = ""

    @property
    def task(self) -> str:
        """Which kind of model answers: ``complete`` or ``edit``."""
        return "complete" if isinstance(self.request, CompletionRequest) else "edit"

    @property
    def is_edit(self) -> bool:
        """Whether a selection is rewritten."""
        return isinstance(self.request, EditRequest)

    @property
    def priority(self) -> int:
        """Ghost text before edits before warm-ups; smaller goes first."""
        return 2 if self.is_warm_up else 1 if self.task == "edit" else 0

    @property
    def sequence(self) -> DecodingSequence | None:
        """Prompt and answer as tokens; None before the request began."""
        return self._sequence

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer so far."""
        return self._decoder.answer.num_tokens if self._decoder else 0

    @property
    def num_forwards(self) -> int:
        """Forwards of this request's answer so far, without its prompt and without alternatives."""
        if self._answer_forwards is not None:
            return self._answer_forwards
        return self._sequence.num_forwards if self._sequence else 0

    @property
    def num_reused(self) -> int:
        """Tokens of the prompt whose keys and values were kept from an earlier request."""
        return self._num_reused

    @property
    def held_s(self) -> float:
        """Seconds since it began; 0 before."""
        return time.perf_counter() - self._started if self._started else 0.0

    @property
    def num_alternatives(self) -> int:
        """Other answers that are wanted besides the best."""
        return self.request.num_alternatives if isinstance(self.request, CompletionRequest) else 0

    def cancel(self) -> None:
        """Ask for an end; from any thread. At most the running forward is finished."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller is gone."""
        return self._cancelled.is_set()

    def is_late(self) -> bool:
        """Whether the deadline has passed."""
        limit = self.request.deadline_ms
        return bool(limit) and (time.perf_counter() - self.arrived) * 1000 >= limit

    def prepare(self, model: LoadedModel, max_tokens: int) -> None:
        """Encode the prompt; :attr:`cache_bytes` is then what it may come to hold. The second time costs nothing."""
        if self._prompt is None:
            # A warm-up computes the prompt of the request to come: the same room for its answer, the same prompt.
            self._prompt, self._max_tokens = (
                encode(self.request, model, max_tokens, is_opening=self.is_warm_up),
                max_tokens,
            )
            num_prompt = len(self._prompt.tokens) + len(self._prompt.suffix)
            self.cache_bytes = model.prefix_cache.bytes_for(num_prompt, max_tokens)

    def begin(self, model: LoadedModel, notice: str) -> None:
        """Take the longest cached prefix and set up the decoder, as far as to its first want."""
        assert self._prompt is not None, "prepare() comes first"
        prompt, max_tokens = self._prompt, self._max_tokens
        self._started = time.perf_counter()
        self.model = model
        self._notice = " ".join(filter(None, (notice, prompt.notice)))
        cache, self._num_reused = model.prefix_cache.take(prompt.tokens, max_tokens, self.caller.space)
        self._sequence = DecodingSequence(
            model.denoiser, list(prompt.tokens), cache, num_prompt=len(prompt.tokens), suffix=prompt.suffix
        )
        sources, self._original = draft_sources(self.request, model, prompt.tokens)
        task = DecodingTask(
            max_tokens=max_tokens,
            original=self._original.text if self._original else (),
            decoding=self.request.decoding,
            sampling=self.request.sampling,
            stop_rules=stop_rules(self.request, model),
            stop_token_ids=model.stop_token_ids,
            banned_token_ids=model.banned_token_ids,
            name=self.task,
            # Until costs are measured: on a CPU the many rows of slots behind every length mostly do not pay.
            round_shape=RoundShape.TWO_PASS if model.denoiser.model.device.type == "cpu" else RoundShape.ALL_LENGTHS,
        )
        is_lossless = resolve_policy(task.decoding.policy, model.denoiser) in LOSSLESS
        recorder = DepartureRecorder() if self.num_alternatives and is_lossless else None
        self._decoder = BlockDecoder(
            model.denoiser, model.tokenizer, self._sequence, task, sources,
            rounds=model.rounds, recorder=recorder, watch=self._tracer.watch if self._tracer else None,
        )  # fmt: skip
        self._run = self._sequence_prefill() if self.is_warm_up else self._answers(model, task, recorder)

    def _answers(
        self, model: LoadedModel, task: DecodingTask, recorder: DepartureRecorder | None
    ) -> Decoding[Progress]:
        """The answer, then the alternatives to it."""
        assert self._sequence is not None and self._decoder is not None
        yield from self._decoder.decode()
        if self.num_alternatives:
            self._answer_forwards = self._sequence.num_forwards
            self._alternatives = Alternatives(
                model, self._sequence, self._decoder, task=task, recorder=recorder, count=self.num_alternatives
            )
            yield from self._in_time(self._alternatives.decode())

    def _in_time(self, decoding: Decoding[Progress]) -> Decoding[Progress]:
        """Alternatives, as long as somebody who has the answer already may be made to wait for them."""
        limit_ms = self.request.alternatives_ms if isinstance(self.request, CompletionRequest) else 0
        begin = time.perf_counter()
        outcome: Any = None
        while True:
            try:
                item = decoding.send(outcome)
            except StopIteration:
                return
            if isinstance(item, Progress) and limit_ms and (time.perf_counter() - begin) * 1000 > limit_ms:
                decoding.close()
                return
            outcome = yield item

    def _sequence_prefill(self) -> Decoding[Progress]:
        assert self._sequence is not None
        while rows := (yield from self._sequence.prefill_piece()):
            yield Progress(rows, "", [])

    def resume(self, outcome: Any = None) -> bool:
        """Go on to the next :attr:`want`, with the ``outcome`` of the last; True when the answer is complete."""
        assert self._run is not None
        self.want = None
        while True:
            try:
                item = self._run.send(outcome)
            except StopIteration:
                return True
            if not isinstance(item, Progress):
                self.want = item
                return False
            outcome = None
            self.num_prefilled += item.num_prefilled
            if self._tracer is not None:
                self._trace(self._tracer, item)
            if item.num_prefilled:
                self._last_prefill = time.perf_counter()
            elif self._on_frame is not None:
                self._show(item)

    def _show(self, progress: Progress) -> None:
        """A preview frame, when there is something new to see."""
        assert self.model is not None and self._on_frame is not None and self._decoder is not None
        # What a rule may still cut off, a half-written fence for one, is not part of the text.
        settled = self._decoder.settled_text().rstrip("`" if self.is_edit else "")
        if settled == self._shown:
            return
        self._shown = settled
        rest = progress.draft or (self._original.remaining(_PREVIEW_TOKENS) if self._original else [])
        unsettled = self.model.tokenizer.decode(rest, skip_special_tokens=True).rstrip("`") if self.is_edit else ""
        self._on_frame(PreviewFrame(id=self.request.id, settled=settled, unsettled=unsettled))

    def _trace(self, tracer: Tracer, progress: Progress) -> None:
        assert self.model is not None and self._sequence is not None
        if self._answer_forwards is None:  # alternatives are other answers
            ms = (time.perf_counter() - self._started) * 1000
            expected = self._original.remaining(_PREVIEW_TOKENS) if self._original else ()
            tracer.show(progress, self._sequence, self.model, ms=ms, expected=expected)

    def finish(self, reason: FinishReason | None = None) -> None:
        """Give the caches back and resolve the future. ``reason`` is given when the answer was interrupted."""
        self._release()
        if self.future.done():
            return
        if reason is FinishReason.CANCELLED:
            self.future.set_exception(RequestCancelled("the request was cancelled"))
            return
        answer = self._decoder.answer if self._decoder else Answer()
        if reason is FinishReason.DEADLINE and answer.finish_reason is not None:
            reason = None  # the answer itself was complete; only further alternatives were cut off
        if reason is FinishReason.DEADLINE and not answer.num_tokens and not self.is_warm_up:
            self.future.set_exception(
                DeadlineExceeded(f"nothing was ready within the deadline of {self.request.deadline_ms} ms")
            )
            return
        self.future.set_result(self._result(answer, reason or answer.finish_reason or FinishReason.STOP))

    def fail(self, error: Exception) -> None:
        """Resolve the future with an error."""
        try:
            self._release()
        finally:  # whoever waits gets an answer
            if not self.future.done():
                self.future.set_exception(error)

    def _release(self) -> None:
        if self._run is not None:
            self._run.close()
        if self._sequence is not None and self.model is not None:
            self.model.prefix_cache.give(self._sequence.tokens, self._sequence.cache, self.caller.space)
        self._run = self.want = None

    def _result(self, answer: Answer, reason: FinishReason) -> Result:
        now = time.perf_counter()
        started = self._started or now
        prefilled = max(self._last_prefill, started)
        num_prompt = self._sequence.num_prompt + len(self._sequence.suffix) if self._sequence else 0
        return Result(
            id=self.request.id,
            text=self._final_text(answer.text, reason),
            finish_reason=reason,
            num_forwards=self.num_forwards,
            num_tokens=answer.num_tokens,
            num_prompt_tokens=num_prompt,
            num_reused_tokens=self._num_reused,
            num_computed_tokens=num_prompt - self._num_reused,
            timings=Timings(
                queue_ms=(started - self.arrived) * 1000,
                prefill_ms=(prefilled - started) * 1000,
                denoise_ms=(now - prefilled) * 1000,
                total_ms=(now - self.arrived) * 1000,
            ),
            model=self.model.name if self.model else "",
            policy=self._decoder.policy.value if self._decoder else "",
            notice=self._notice,
            alternatives=tuple(self._alternatives.texts) if self._alternatives else (),
        )

    def _final_text(self, text: str, reason: FinishReason) -> str:
        """An edited selection ends with a line break exactly when the selection did."""
        if not isinstance(self.request, EditRequest) or reason is not FinishReason.STOP or not text:
            return text
        text = drop_stray_fence(text, self.request.selection)
        return text.rstrip("\n") + "\n" if self.request.selection.endswith("\n") else text.rstrip("\n")
