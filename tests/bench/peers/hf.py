"""transformers' `generate` as a peer, greedy, with our weights in its own model."""

from __future__ import annotations

import inspect
import time
from importlib.metadata import version
from typing import Any

import torch
from bench.peers.items import AnswerReader, Item
from bench.peers.peer import Answer, Unavailable
from bench.reference_model import load_reference_of
from transformers import DynamicCache, Qwen2ForCausalLM, StoppingCriteria, StoppingCriteriaList

from diffusion_core.engine.loaded_model import LoadedModel

# transformers' documentation uses 3 and 10; longer drafts favour edits, where most is copied.
LOOKUP_TOKENS = 10
# The argument was renamed within transformers 5.
CACHE = "cache" if "cache" in inspect.signature(Qwen2ForCausalLM.forward).parameters else "past_key_values"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class References:
    """transformers' model of a checkpoint, one for each dtype."""

    def __init__(self, model: str) -> None:
        self._name = model
        self._models: dict[str, Qwen2ForCausalLM] = {}

    def get(self, dtype: str) -> Qwen2ForCausalLM:
        """The model in ``dtype`` (empty: bfloat16).

        Raises:
            Unavailable: the dtype is none of :data:`DTYPES`.
        """
        dtype = dtype or "bfloat16"
        if dtype not in DTYPES:
            raise Unavailable(f"dtype {dtype!r}: allowed are {', '.join(DTYPES)}")
        if dtype not in self._models:
            self._models[dtype] = load_reference_of(self._name, DTYPES[dtype])
        return self._models[dtype]


class EndOfAnswer(StoppingCriteria):
    """Feeds new tokens to the reader, stops when it has enough, and notes when that was."""

    def __init__(self, reader: AnswerReader, num_prompt: int) -> None:
        self._reader, self._num_seen = reader, num_prompt
        self.num_calls, self.first_called, self.completed = 0, 0.0, 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.num_calls += 1
        self.first_called = self.first_called or time.perf_counter()
        for token in input_ids[0, self._num_seen :].tolist():
            if not self._reader.is_complete and self._reader.feed(token):
                self.completed = time.perf_counter()
        self._num_seen = input_ids.shape[1]
        return torch.tensor([self._reader.is_complete])


class TransformersPeer:
    """`generate`, from a cache that holds the prompt but for its last token.

    With lookup it computes the prompt itself: given such a cache, `generate` of transformers 5.24 changes the text.
    Then ``prefill_s`` ends with the first tokens, which makes the rate of decoding look a little better than it is.
    """

    def __init__(self, name: str, model: Qwen2ForCausalLM, base: LoadedModel, *, uses_lookup: bool) -> None:
        self.name, self._model, self._base, self._uses_lookup = name, model, base, uses_lookup

    def describe(self) -> str:
        return f"transformers {version('transformers')}, {self._model.dtype}, {torch.get_num_threads()} threads"

    @torch.inference_mode()
    def answer(self, item: Item) -> Answer:
        reader = AnswerReader(item, self._base)
        end = EndOfAnswer(reader, len(item.tokens))
        ids = torch.tensor([item.tokens])
        started = time.perf_counter()
        options = {"prompt_lookup_num_tokens": LOOKUP_TOKENS} if self._uses_lookup else {CACHE: self._prefill(ids)}
        begin = time.perf_counter()
        self._model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0,
            max_new_tokens=item.request.max_tokens, stopping_criteria=StoppingCriteriaList([end]), **options,
        )  # fmt: skip
        finished = end.completed or time.perf_counter()
        if self._uses_lookup:
            begin = end.first_called
        return Answer(
            text=reader.text, prefill_s=begin - started, decode_s=finished - begin, total_s=finished - started,
            num_forwards=end.num_calls,
        )  # fmt: skip

    def _prefill(self, ids: torch.Tensor) -> DynamicCache:
        cache = DynamicCache(config=self._model.config)
        self._model(ids[:, :-1], **{CACHE: cache}, use_cache=True, logits_to_keep=1)
        return cache

    def close(self) -> None:
        """The model is shared."""
