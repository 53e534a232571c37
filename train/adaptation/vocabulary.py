"""The part of the vocabulary that drafts are made of: the tokens that occur in code.

A draft is only a guess, so tokens that hardly occur may be left out: the output head over a tenth of the vocabulary
costs a tenth, in training and in serving.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


def choose_vocabulary(
    sequences: Iterable[torch.Tensor], size: int, vocab_size: int, always: Sequence[int]
) -> torch.Tensor:
    """The ``size`` most frequent tokens of ``sequences`` and those of ``always``, ascending, int64 [size].

    Where fewer occur, the lowest ids fill the rest: a byte-level tokenizer's first ids are the bytes and short words.
    """
    counts = torch.zeros(vocab_size, dtype=torch.long)
    for tokens in sequences:
        counts += torch.bincount(tokens, minlength=vocab_size)
    # Ties, and tokens that never occurred, are taken in order of their ids.
    counts = counts * vocab_size + torch.arange(vocab_size - 1, -1, -1)
    counts[list(always)] = torch.iinfo(torch.long).max
    return counts.topk(min(size, vocab_size)).indices.sort().values


def invert(token_ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Place of every token in ``token_ids``, -1 where it has none: int64 [vocab_size]."""
    index_of = torch.full((vocab_size,), -1)
    index_of[token_ids] = torch.arange(len(token_ids))
    return index_of
