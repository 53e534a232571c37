"""The loader: samples of a corpus as a pure function of (seed, step, rank). No hidden state, no worker processes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from diffusion_core.errors import ConfigError
from diffusion_core.model.config import DiffusionConfig
from train.data.corpus import open_corpus
from train.data.errors import CorpusError
from train.data.examples import EDIT_KINDS, ExampleKind
from train.data.layouts import InfillLayouts
from train.data.mixture import MixtureOrder, resolve_mixture
from train.data.samples import Sample
from train.data.tokenise import KINDS, Progress, TokenStore, open_tokens, stop_tokens

logger = logging.getLogger(__name__)

_MIN_TOKENS = 8


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """``sequences`` is the size of a batch of all ranks together; ``max_tokens`` the longest sample.

    ``mixture``: weight by kind (see :func:`mixture.resolve_mixture`); ``layouts``: fill-in-the-middle layouts drawn
    from, empty for the checkpoint's own.
    """

    sequences: int = 8
    max_tokens: int = 1024
    mixture: dict[str, float] = field(default_factory=dict)
    layouts: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise ConfigError(f"sequences is {self.sequences}: at least 1")
        if self.max_tokens < 32:
            raise ConfigError(f"max_tokens is {self.max_tokens}: at least 32")


def log_progress(stage: str, done: int, total: int) -> None:
    """Say now and then how far a long stage is."""
    if done % 16384 == 0:
        logger.info("%s: %d of %d examples", stage, done, total)


class SampleLoader:
    """Samples of one split of a corpus, tokenised once and memory-mapped after that.

    Raises:
        CorpusError: no corpus, damaged, or the split is empty.
        ConfigError: a mixture or layout that does not exist, or no example within ``max_tokens``.
    """

    def __init__(
        self,
        corpus: str | Path,
        tokenizer: Tokenizer,
        contract: DiffusionConfig,
        config: LoaderConfig,
        split: str = "train",
        *,
        on_progress: Progress = log_progress,
    ) -> None:
        if not str(corpus):
            raise ConfigError("no corpus is named: make one with `unmask data build`")
        self._config = config
        opened = open_corpus(Path(corpus))
        self._store = open_tokens(
            opened, split, tokenizer, contract, max_tokens=config.max_tokens, on_progress=on_progress
        )
        self._layouts = InfillLayouts(tokenizer, contract, config.layouts, config.max_tokens)
        form_stop = self._layouts.format.stop_tokens
        self._stop = stop_tokens(tokenizer, contract, form_stop)
        self._entries = _list_entries(self._store, config.max_tokens, self._layouts.overhead + len(self._stop))
        self._sizes = {kind: len(entries) for kind, entries in self._entries.items()}
        mixture = self._present(config.mixture) if split != "train" else config.mixture
        self.weights = resolve_mixture(mixture, self._sizes)
        self._order = MixtureOrder(self.weights, self._sizes, config.seed)

    def _present(self, mixture: dict[str, float]) -> dict[str, float]:
        """Held-out data may lack a rare kind; the others are then drawn as asked."""
        found: dict[str, float] = {}
        for name, weight in mixture.items():
            try:
                resolve_mixture({name: 1.0}, self._sizes)
            except ConfigError as error:
                if "no such example" not in str(error):
                    raise
                logger.warning("held-out data: %s", error)
            else:
                found[name] = weight
        if mixture and not any(found.values()):
            raise CorpusError(f"the held-out split has no example of {', '.join(mixture)}: build a larger corpus")
        return found

    @property
    def num_entries(self) -> int:
        """How many different samples there are (a long document is several)."""
        return sum(self._sizes.values())

    @property
    def num_tokens(self) -> int:
        """How many tokens the split holds, context included."""
        return len(self._store.tokens)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """The rank's samples of a step; all ranks' together are the batch of a single rank."""
        first = step * self._config.sequences
        return [self.sample(first + place) for place in range(rank, self._config.sequences, world_size)]

    def sample(self, number: int) -> Sample:
        """Draw ``number`` of the run."""
        kind, index = self._order.draw(number)
        example, begin, end = self._entries[kind][index].tolist()
        segments = self._store.segments(example)
        ends = bool(self._stop)  # a checkpoint without any stop token never ends an answer
        name = f"{kind.value}/{self._store.numbers[example]}"
        if kind in EDIT_KINDS:
            prompt, original, edited, changed = segments
            return _make_sample(prompt, edited, kind, name, is_finished=ends, changed=changed, original=original)
        if kind is ExampleKind.DOCUMENT:
            is_last = end == len(segments[2])
            text = _join([segments[2][begin:end], self._stop if is_last else []])
            return _make_sample(text[:0], text, kind, f"{name}:{begin}", is_finished=is_last and ends)
        prefix, suffix, middle = segments[:3]
        answer = _join([middle, self._stop])
        generator = np.random.default_rng((self._config.seed, 3, number))
        layout = self._layouts.choose(generator)
        context = self._layouts.prompt(layout, prefix, suffix, len(answer))
        return _make_sample(context, answer, kind, name, is_finished=ends)


Tokens = npt.NDArray[np.int64]


def _join(parts: Sequence[npt.ArrayLike]) -> Tokens:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])


def _make_sample(
    prompt: npt.ArrayLike,
    answer: npt.ArrayLike,
    kind: ExampleKind,
    name: str,
    *,
    changed: npt.ArrayLike | None = None,
    original: npt.ArrayLike = (),
    is_finished: bool,
) -> Sample:
    tokens = _join([prompt, answer])
    num_answer = len(np.asarray(answer))
    flags = np.ones(num_answer, dtype=bool) if changed is None else np.asarray(changed).astype(bool)
    return Sample(
        tokens=torch.from_numpy(tokens),
        num_prompt=len(tokens) - num_answer,
        kind=kind.value,
        answer_changed=torch.from_numpy(flags),
        original=torch.from_numpy(_join([original])),
        id=name,
        is_finished=is_finished,
    )


def _list_entries(store: TokenStore, max_tokens: int, overhead: int) -> dict[ExampleKind, Tokens]:
    """For each kind, rows (example, begin, end) [N, 3]; begin and end cut documents into windows of equal length."""
    entries: dict[ExampleKind, Tokens] = {}
    for number, kind in enumerate(KINDS):
        examples = np.flatnonzero(store.kinds == number)
        lengths = store.index[examples, 1:]
        if kind is ExampleKind.DOCUMENT:
            rows = [
                (example, begin, end)
                for example, length in zip(examples.tolist(), lengths[:, 2].tolist(), strict=True)
                for begin, end in cut_windows(length, max_tokens - 1)
            ]
            entries[kind] = np.asarray(rows, dtype=np.int64).reshape(-1, 3)
            continue
        if kind in EDIT_KINDS:
            fits = lengths[:, 0] + lengths[:, 2] <= max_tokens
        else:  # at least a quarter is left for the context
            fits = lengths[:, 2] + overhead <= max_tokens * 3 // 4
        kept = examples[fits]
        entries[kind] = np.stack([kept, np.zeros_like(kept), np.zeros_like(kept)], axis=1)
    return {kind: rows for kind, rows in entries.items() if len(rows)}


def cut_windows(length: int, limit: int) -> list[tuple[int, int]]:
    """Ranges of nearly equal length, at most ``limit`` each, that cover 0 to ``length``; none for a tiny text."""
    if length < _MIN_TOKENS:
        return []
    number = -(-length // limit)
    bounds = [length * place // number for place in range(number + 1)]
    return list(itertools.pairwise(bounds))
