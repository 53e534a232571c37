"""The first pass of a training step: clean tokens through the frozen base, without gradients.

Its keys and values are the context of all slots of the second pass, its logits the soft targets, its hidden states
the features of a draft head (training.md section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffusion_core.model.kv_cache import FixedContext, KVCache
from diffusion_core.model.masks import causal
from diffusion_core.model.transformer import Transformer
from train.data.samples import Sample


@dataclass(frozen=True)
class CleanBatch:
    """Sequences padded at the end: ``tokens`` int64 [B, T]; ``lengths``, ``prompts`` (tokens of the prompt) int64 [B].

    Padding needs no mask of its own: rows are causal, and no block reaches behind a sequence's length.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    prompts: torch.Tensor
    ids: tuple[str, ...]


@dataclass(frozen=True)
class CleanPass:
    """What the base made of clean tokens.

    Keys and values [B, K, T, Dh] of each layer, normalised hidden states [B, T, D], the taps asked for [B, T, D].
    """

    context: FixedContext
    hidden: torch.Tensor
    tapped: list[torch.Tensor]

    @property
    def num_rows(self) -> int:
        """T."""
        return self.hidden.shape[1]

    def convert(self, dtype: torch.dtype, *, keeps_context: bool) -> CleanPass:
        """The same in another dtype; a draft head has no use for the base's keys and values."""
        context = self.context.convert(dtype) if keeps_context else FixedContext([], [])
        return CleanPass(context, self.hidden.to(dtype), [x.to(dtype) for x in self.tapped])


class RememberedPasses:
    """Clean passes of batches that come again, kept in bfloat16 in main memory: the frozen base is run once for each.

    About 7 kB a token for a draft head of three taps on the 0.5B, 20 kB for a gated adapter.
    """

    def __init__(self, base: Transformer, taps: Sequence[int], *, keeps_context: bool) -> None:
        self._base, self._taps, self._keeps_context = base, taps, keeps_context
        self._kept: dict[int, CleanPass] = {}

    def get(self, number: int, tokens: torch.Tensor) -> CleanPass:
        """The clean pass of batch ``number``, whose tokens are ``tokens`` [B, T]."""
        if number not in self._kept:
            made = run_clean_pass(self._base, tokens, self._taps)
            self._kept[number] = made.convert(torch.bfloat16, keeps_context=self._keeps_context)
        return self._kept[number].convert(self._base.dtype, keeps_context=self._keeps_context)


def join_samples(samples: Sequence[Sample]) -> CleanBatch:
    """Pad samples to the longest one."""
    lengths = torch.tensor([len(sample.tokens) for sample in samples])
    tokens = torch.zeros(len(samples), int(lengths.max()), dtype=torch.long)
    for row, sample in zip(tokens, samples, strict=True):
        row[: len(sample.tokens)] = sample.tokens
    prompts = torch.tensor([sample.num_prompt for sample in samples])
    return CleanBatch(tokens, lengths, prompts, tuple(sample.id for sample in samples))


@torch.no_grad()
def run_clean_pass(base: Transformer, tokens: torch.Tensor, taps: Sequence[int] = ()) -> CleanPass:
    """Evaluate ``tokens`` [B, T] causally."""
    num_sequences, num_rows = tokens.shape
    cache = KVCache(base.config, capacity=num_rows, dtype=base.dtype, device=base.device, num_sequences=num_sequences)
    positions = torch.arange(num_rows, device=base.device).expand(num_sequences, -1)
    tapped: list[torch.Tensor] = []
    hidden = base(tokens, positions, causal(num_rows), cache=cache, taps=taps, tapped=tapped)
    cache.commit(num_rows)
    pairs = [cache.committed(layer) for layer in range(base.config.num_layers)]
    return CleanPass(FixedContext([k for k, _ in pairs], [v for _, v in pairs]), hidden, tapped)
