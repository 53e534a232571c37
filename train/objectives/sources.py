"""Where samples come from: a corpus, or the synthetic grammar. Both are pure functions of (seed, number)."""

from __future__ import annotations

import random
from typing import Protocol

import torch
from tokenizers import Tokenizer

from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.requests import CompletionRequest
from train.config import TrainConfig
from train.data.examples import InfillExample
from train.data.loader import LoaderConfig, SampleLoader
from train.data.samples import Sample
from train.grammar import all_contexts, make_example
from train.objective import derive_seed

# Room for the answer that the prompt encoder keeps free; a grammar answer is shorter than this.
_MAX_ANSWER = 32


class SampleSource(Protocol):
    """Samples by step and rank; the batches of all ranks together are the batch of a single rank."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """Samples number ``step * sequences + rank``, ``+ rank + world_size``, ... of the run."""
        ...


class GrammarSource:
    """Samples of the synthetic grammar (``train/grammar.py``): without end for training, a fixed list held out."""

    def __init__(
        self, tokenizer: Tokenizer, contract: DiffusionConfig, *, sequences: int, seed: int, is_held_out: bool = False
    ) -> None:
        self._contexts = all_contexts(is_held_out=is_held_out)
        self._sequences, self._seed, self._is_held_out = sequences, seed, is_held_out
        self._encoder = PromptEncoder(tokenizer, contract, 4 * _MAX_ANSWER + 512)
        if not contract.stop_token_ids:
            raise ConfigError("the checkpoint has no stop tokens: an answer of the grammar could not end")
        stop = tokenizer.token_to_id(self._encoder.format.stop_tokens[0]) if self._encoder.format.stop_tokens else None
        self.stop_id = contract.stop_token_ids[0] if stop is None else stop

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Sample]:
        """The rank's samples of a step."""
        first = step * self._sequences
        return [self.sample(first + place) for place in range(rank, self._sequences, world_size)]

    def example(self, number: int) -> InfillExample:
        """Example ``number`` of the run; held-out examples walk through their contexts one by one."""
        choice = random.Random(derive_seed(self._seed, "grammar", number))  # noqa: S311 - reproducible, not secret
        if self._is_held_out:
            return make_example(self._contexts[number % len(self._contexts)], choice)
        return make_example(choice.choice(self._contexts), choice)

    def sample(self, number: int) -> Sample:
        """The tokens of example ``number``."""
        example = self.example(number)
        request = CompletionRequest(prefix=example.prefix, suffix=example.suffix, language=example.origin.language)
        prompt = self._encoder.encode_completion(request, _MAX_ANSWER).tokens
        answer = [*self._encoder.encode_text(example.middle), self.stop_id]
        return Sample(
            tokens=torch.tensor(prompt + answer),
            num_prompt=len(prompt),
            kind=example.kind.value,
            answer_changed=torch.ones(len(answer), dtype=torch.bool),
            original=torch.empty(0, dtype=torch.long),
            id=f"grammar/{number}",
        )


def make_sources(
    config: TrainConfig, tokenizer: Tokenizer, contract: DiffusionConfig
) -> tuple[SampleSource, SampleSource]:
    """Training and held-out samples as the configuration asks for them."""
    data = config.data
    if data.source == "grammar":
        return (
            GrammarSource(tokenizer, contract, sequences=data.sequences, seed=config.seed),
            GrammarSource(tokenizer, contract, sequences=data.sequences, seed=config.seed, is_held_out=True),
        )
    loader = LoaderConfig(
        sequences=data.sequences,
        max_tokens=data.max_tokens,
        mixture=data.mixture,
        layouts=data.layouts,
        seed=config.seed,
    )
    return (
        SampleLoader(data.corpus, tokenizer, contract, loader, "train"),
        SampleLoader(data.corpus, tokenizer, contract, loader, "held_out"),
    )
