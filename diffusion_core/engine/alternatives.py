"""Other answers to a request whose answer is complete, for a user who asks to choose.

Where the model judges every token by itself (the lossless policies), an alternative departs from the answer at its
least certain place and goes on from there, so only what differs is computed. A model that denoises blocks is asked
again with other noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count as count_up
from itertools import islice

from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.requests import SamplingParams
from diffusion_core.sampling.aligned_draft import AlignedDraft
from diffusion_core.sampling.asking import Decoding
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask, Progress
from diffusion_core.sampling.departures import DepartureRecorder
from diffusion_core.sampling.drafts import DraftSource, LookupDraft
from diffusion_core.sampling.sequence import DecodingSequence

# Some ways lead to a text that is known already.
MAX_TRIES_EACH = 3
SAMPLING_TEMPERATURE = 0.8


class Alternatives:
    """Decodes up to ``count`` texts that differ from the answer of ``decoder`` and from each other.

    They are decoded one after the other over the answer's own sequence, whose end is thrown away each time.
    """

    def __init__(
        self,
        model: LoadedModel,
        sequence: DecodingSequence,
        decoder: BlockDecoder,
        *,
        task: DecodingTask,
        recorder: DepartureRecorder | None,
        count: int,
    ) -> None:
        self._model, self._sequence, self._task = model, sequence, task
        self._recorder, self._count = recorder, count
        self._answer = decoder.kept_tokens()
        self._known = {decoder.answer.text.strip()}
        self.texts: list[str] = []

    def decode(self) -> Decoding[Progress]:
        """Yields what it wants evaluated, and progress after every forward."""
        for tokens, sampling in islice(self._ways(), self._count * MAX_TRIES_EACH):
            decoder = self._restart(tokens, sampling)
            if decoder.answer.finish_reason is None:
                yield from decoder.decode()
            text = decoder.answer.text
            if text.strip() and text.strip() not in self._known:
                self._known.add(text.strip())
                self.texts.append(text)
            if len(self.texts) >= self._count:
                return

    def _ways(self) -> Iterator[tuple[list[int], SamplingParams]]:
        """First tokens of an answer and how to go on, the most promising way first."""
        sampling = self._task.sampling
        if self._recorder is not None:
            for departure in self._recorder.ranked(self._sequence.num_prompt, self._answer):
                yield [*self._answer[: departure.num_kept], departure.token], sampling
        else:
            temperature = sampling.temperature or SAMPLING_TEMPERATURE
            for number in count_up(1):
                yield [], replace(sampling, temperature=temperature, seed=(sampling.seed + number) % 2**63)

    def _restart(self, tokens: list[int], sampling: SamplingParams) -> BlockDecoder:
        """A decoder that goes on behind ``tokens``; keys and values of what it shares with the last one are kept."""
        sequence, start = self._sequence, self._sequence.num_prompt
        shared = 0
        for old, new in zip(sequence.tokens[start:], tokens, strict=False):
            if old != new:
                break
            shared += 1
        last = start + len(tokens) - 1  # its row gives the next logits
        length = min(sequence.cache.length, start + shared, last)
        sequence.cache.crop(self._model.prefix_cache.reusable(length))
        sequence.tokens[start:] = tokens
        task = replace(self._task, sampling=sampling)
        rest = self._answer[len(tokens) :]
        sources: list[DraftSource] = [AlignedDraft(rest, "answer")] if rest else []
        if task.decoding.use_lookup:
            sources.append(LookupDraft(sequence.tokens))
        model = self._model
        decoder = BlockDecoder(model.denoiser, model.tokenizer, sequence, task, sources, rounds=model.rounds)
        decoder.replay(tokens)
        return decoder
