"""Shows the forwards of one request to somebody who watches it. Who is not watched pays nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers.decoders import DecodeStream

from diffusion_core.chat import ChatRequest
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import CompletionRequest, EditRequest
from diffusion_core.sampling.acceptance import count_agreeing
from diffusion_core.sampling.block_decoder import Progress
from diffusion_core.sampling.choice_watch import ChoiceWatch
from diffusion_core.sampling.policy import Step
from diffusion_core.sampling.sequence import DecodingSequence
from diffusion_core.trace import TraceFrame, TraceSlot, TraceToken

TraceCallback = Callable[[TraceFrame], None]

# Settled tokens that a draft's text is read behind: some tokenizers write the first token of a text differently.
_NUM_LEADING = 4


class Tracer:
    """Makes a :class:`TraceFrame` of every forward and gives it to ``on_trace``, in the engine's thread.

    Raises:
        InvalidRequest: the request asks for alternatives, which are answers of their own.
    """

    def __init__(self, request: CompletionRequest | EditRequest | ChatRequest, on_trace: TraceCallback) -> None:
        if isinstance(request, CompletionRequest) and request.num_alternatives:
            raise InvalidRequest("num_alternatives is set: only a request for one answer can be watched")
        self._id, self._on_trace = request.id, on_trace
        self.watch = ChoiceWatch()
        self._stream = DecodeStream(skip_special_tokens=True)

    def show(
        self,
        progress: Progress,
        sequence: DecodingSequence,
        model: LoadedModel,
        *,
        ms: float,
        expected: Sequence[int] = (),
    ) -> None:
        """Tell of the forward that has just run; ``expected`` tokens go on where nothing is settled or drafted."""
        step = progress.step
        if step is None:
            frame = TraceFrame(id=self._id, ms=ms, num_prefilled=progress.num_prefilled)
        else:
            frame = self._frame(step, sequence, model, ms, expected)
        self.watch.forget()
        self._on_trace(frame)

    def _frame(
        self, step: Step, sequence: DecodingSequence, model: LoadedModel, ms: float, expected: Sequence[int]
    ) -> TraceFrame:
        end = len(sequence.tokens)
        start = end - len(step.accepted)
        num_accepted = count_agreeing(step.judged, step.accepted)
        context = sequence.tokens[max(0, start - _NUM_LEADING) : start]
        judged = _read(step.judged, context, model)
        sure = self.watch.judged(start, step.judged)
        rejected = [
            TraceToken(text=text, confidence=confidence, is_end=token in model.stop_token_ids)
            for token, text, confidence in zip(step.judged, judged, sure, strict=True)
        ][num_accepted:]
        return TraceFrame(
            id=self._id,
            ms=ms,
            settled=self._settle(step, start, model),
            num_accepted=num_accepted,
            rejected=tuple(rejected),
            source=step.source,
            slots=self._slots(step, sequence, model),
            expected=model.tokenizer.decode(list(expected), skip_special_tokens=True),
        )

    def _settle(self, step: Step, start: int, model: LoadedModel) -> tuple[TraceToken, ...]:
        return tuple(
            TraceToken(
                text=self._stream.step(model.tokenizer, token) or "",
                confidence=confidence,
                is_end=token in model.stop_token_ids,
            )
            for token, confidence in zip(step.accepted, self.watch.judged(start, step.accepted), strict=True)
        )

    def _slots(self, step: Step, sequence: DecodingSequence, model: LoadedModel) -> tuple[TraceSlot, ...]:
        places = list(step.slots or step.draft)
        found = self.watch.drafted(len(sequence.tokens), places)
        texts = _read([token for token, _ in found], sequence.tokens[-_NUM_LEADING:], model)
        return tuple(
            TraceSlot(
                token=TraceToken(text=text, confidence=confidence, is_end=token in model.stop_token_ids),
                is_masked=place is None,
            )
            for place, (token, confidence), text in zip(places, found, texts, strict=True)
        )


def _read(tokens: Sequence[int | None], context: Sequence[int], model: LoadedModel) -> list[str]:
    """The text that each token adds behind ``context``; nothing for None."""
    stream = DecodeStream(skip_special_tokens=True)
    for token in context:
        stream.step(model.tokenizer, token)
    return ["" if token is None else stream.step(model.tokenizer, token) or "" for token in tokens]
