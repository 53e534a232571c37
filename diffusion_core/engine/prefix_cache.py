"""Keys and values of recent requests, kept so that the next keystroke computes only what is new.

The clean path is causal, so the longest common prefix of the token ids may be reused exactly, at any token. Where
blocks see themselves whole, reuse ends at the block grid; a bidirectional prefix cannot be reused at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_core.model.config import AttentionPattern
from diffusion_core.sampling.drafts import Tokens
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import SequenceCache

# Room behind prompt and answer for the rows of a draft that is being verified.
DRAFT_ROOM = 96


@dataclass(eq=False)
class _Entry:
    tokens: Tokens
    cache: SequenceCache


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Number of leading tokens that two sequences share."""
    n = min(len(a), len(b))
    differs = np.flatnonzero(a[:n] != b[:n])
    return int(differs[0]) if len(differs) else n


class PrefixCache:
    """Caches of one model's recent sequences, least recently used first, within ``max_bytes``."""

    def __init__(self, denoiser: Denoiser, max_bytes: int) -> None:
        self._denoiser, self._max_bytes = denoiser, max_bytes
        self._entries: list[_Entry] = []

    @property
    def num_bytes(self) -> int:
        """Memory held by idle caches, in bytes."""
        return sum(entry.cache.num_bytes for entry in self._entries)

    def take(self, tokens: Sequence[int], num_answer: int) -> tuple[SequenceCache, int]:
        """A cache for ``tokens`` with the longest reusable prefix in it, and that prefix's length.

        At least the last token is left to compute: its row makes the first logits. The caller owns the cache until
        it is given back.
        """
        capacity = len(tokens) + num_answer + DRAFT_ROOM
        wanted = np.asarray(tokens, dtype=np.int64)
        best, shared = None, 0
        for entry in self._entries:
            found = self.reusable(min(common_prefix(entry.tokens, wanted), len(wanted) - 1))
            if found >= max(shared, 1):  # ties go to the most recent
                best, shared = entry, found
        if best is None:
            return SequenceCache.create(self._denoiser, capacity), 0
        if 2 * shared < len(best.tokens):
            # Mostly another text (a shared preamble): leave it to its owner and copy the common part.
            return best.cache.copy(shared, capacity), shared
        self._entries.remove(best)
        best.cache.crop(shared)
        return best.cache, shared

    def give(self, tokens: Sequence[int], cache: SequenceCache) -> None:
        """Keep a cache whose committed positions are the first of ``tokens``."""
        length = self.reusable(cache.length)
        if length == 0:
            return
        cache.crop(length)
        self._entries.append(_Entry(np.asarray(tokens[:length], dtype=np.int64), cache))
        while self._entries and self.num_bytes > self._max_bytes:
            self._entries.pop(0)

    def reusable(self, length: int) -> int:
        """How many of the first ``length`` positions stay valid when what follows them changes."""
        contract = self._denoiser.contract
        match contract.attention:
            case AttentionPattern.CAUSAL_CONTEXT:
                return length
            case AttentionPattern.BLOCK_CAUSAL:
                return length // contract.block_size * contract.block_size
            case _:
                return 0
