"""Measures what a user waits for: a suggestion after every typed character, and the first one in a new file.

The engine is asked in its own process. A file of real code has a hole; the text before it grows by one character with
every request, and an answer of a few tokens is asked for. The first request of a round is cold: its file begins with a
line that no earlier one had, before and after the hole, so that no cache knows it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_core.config import EngineConfig
from diffusion_core.errors import ConfigError
from diffusion_core.eval.report import divide, percentile
from diffusion_core.eval.run import Progress, Report
from diffusion_core.requests import CompletionRequest, Result

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from diffusion_core.engine.runner import AsyncEngine

# What stands before the hole, as a part of the context.
_PREFIX_SHARE = 0.75
# Tokens: what is around the source in a prompt (special tokens, two comment lines) and what the engine keeps free.
_MARGIN = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyOptions:
    """``contexts`` are prompt lengths in tokens; in each of ``rounds`` rounds every one is read and typed into.

    ``num_keys`` characters are typed in a round, and every answer has up to ``num_tokens`` tokens.
    """

    contexts: Sequence[int]
    rounds: int
    num_keys: int
    num_tokens: int


@dataclass(slots=True)
class ContextSamples:
    """Measurements at one context length. Times are milliseconds as the caller sees them."""

    context: int
    cold: list[tuple[float, Result]] = field(default_factory=list)
    keys: list[tuple[float, Result]] = field(default_factory=list)


def default_source() -> str:
    """Code to type into that every installation has: the engine's own."""
    from diffusion_core import engine

    folder = Path(str(engine.__file__)).parent
    return "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")) if path.stat().st_size)


async def measure_contexts(
    engine: AsyncEngine, config: EngineConfig, source: str, options: LatencyOptions, report: Report
) -> list[dict[str, Any]]:
    """Measure every context length, in turns; one JSON object for each.

    Raises:
        ConfigError: the source is shorter than the longest context, or the context longer than the model reads.
    """
    model = next(model for model in engine.loaded_models() if model.name == config.model)
    file = _SourceFile(source, model.tokenizer, options.num_keys)
    most = min(config.max_context_tokens, model.denoiser.model.config.max_position_embeddings)
    file.check(max(options.contexts), most - options.num_tokens - _MARGIN)
    samples = [ContextSamples(context) for context in options.contexts]
    total, done = options.rounds * len(samples) * (options.num_keys + 1), 0
    await engine.complete(file.request(min(options.contexts), 0, "warm-up", options.num_tokens))
    for turn in range(options.rounds):
        for sample in samples if turn % 2 == 0 else reversed(samples):
            for num_typed in range(options.num_keys + 1):
                request = file.request(sample.context, num_typed, f"round {turn}", options.num_tokens)
                started = time.perf_counter()
                result = await engine.complete(request)
                ms = (time.perf_counter() - started) * 1000
                (sample.keys if num_typed else sample.cold).append((ms, result))
                done += 1
                report(Progress(done, total, 0, 0))
    return [summarize_context(sample) for sample in samples]


class _SourceFile:
    """Cuts requests of given prompt lengths out of a text."""

    def __init__(self, source: str, tokenizer: Tokenizer, num_keys: int) -> None:
        self._source, self._num_keys = source, num_keys
        # Where each token ends, in characters.
        self._ends = [end for _, end in tokenizer.encode(source, add_special_tokens=False).offsets]

    def check(self, context: int, limit: int) -> None:
        """Raise :class:`ConfigError` unless ``context`` tokens are to be had, and to be read by the model."""
        if context > limit:
            raise ConfigError(f"--contexts {context}: the model reads at most {limit} tokens besides its answer")
        if context + self._num_keys >= len(self._ends):
            raise ConfigError(f"--contexts {context}: the source has only {len(self._ends)} tokens: give a longer one")

    def request(self, context: int, num_typed: int, mark: str, num_tokens: int) -> CompletionRequest:
        """A prompt of about ``context`` tokens with ``num_typed`` characters typed; ``mark`` makes it a new file."""
        hole = self._ends[int(context * _PREFIX_SHARE) - 1]
        rest = hole + self._num_keys
        end = self._ends[min(context + self._num_keys, len(self._ends)) - 1]
        line = f"# {mark}, {context} tokens\n"
        return CompletionRequest(
            prefix=line + self._source[: hole + num_typed], suffix="\n" + line + self._source[rest : max(rest, end)],
            language="python", max_tokens=num_tokens, stop_at_scope=False,
        )  # fmt: skip


def summarize_context(sample: ContextSamples) -> dict[str, Any]:
    """JSON of one context length."""
    everything = [result for _, result in chain(sample.cold, sample.keys)]
    cold = [result for _, result in sample.cold]
    rates = [divide(result.num_computed_tokens, result.timings.prefill_ms / 1000) for result in cold]
    typed = [result for _, result in sample.keys]
    return {
        "context_tokens": sample.context,
        "prompt_tokens": max((result.num_prompt_tokens for result in everything), default=0),
        "cold": {
            "requests": len(cold),
            "computed_tokens": percentile([result.num_computed_tokens for result in cold], 0.5),
            "prefill_ms": percentile([result.timings.prefill_ms for result in cold], 0.5),
            "prefill_tokens_per_second": percentile(rates, 0.5),
            "p50_ms": percentile([ms for ms, _ in sample.cold], 0.5),
        },
        "keystroke": {
            "requests": len(typed),
            "p50_ms": percentile([ms for ms, _ in sample.keys], 0.5),
            "p95_ms": percentile([ms for ms, _ in sample.keys], 0.95),
            "computed_tokens": divide(sum(result.num_computed_tokens for result in typed), len(typed)),
            "tokens": divide(sum(result.num_tokens for result in typed), len(typed)),
            "forwards": divide(sum(result.num_forwards for result in typed), len(typed)),
            "tokens_per_forward": divide(
                sum(result.num_tokens for result in typed), sum(result.num_forwards for result in typed)
            ),
        },
    }
