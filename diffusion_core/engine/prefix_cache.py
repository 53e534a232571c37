"""Keys and values of recent requests, kept so that the next keystroke computes only what is new.

The clean path is causal, so the longest common prefix of the token ids may be reused exactly, at any token. Where
blocks see themselves whole, reuse ends at the block grid; a bidirectional prefix cannot be reused at all.

Every entry belongs to a space (callers.py), and only requests of that space find it: whether somebody else's prompt
was computed before can be told neither by a result nor by the time it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_core.callers import OWNER
from diffusion_core.model.config import AttentionPattern
from diffusion_core.model.kv_cache import KEY_BUCKET, round_up
from diffusion_core.sampling.drafts import Tokens
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import SequenceCache

# Room behind prompt and answer for the rows of a draft that is being verified.
DRAFT_ROOM = 96

# A space that was given nothing for so many seconds has no share of its own any more.
PROTECTED_S = 300.0


@dataclass(eq=False)
class _Entry:
    space: str
    tokens: Tokens
    cache: SequenceCache


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Number of leading tokens that two sequences share."""
    n = min(len(a), len(b))
    differs = np.flatnonzero(a[:n] != b[:n])
    return int(differs[0]) if len(differs) else n


class PrefixCache:
    """Caches of one model's recent sequences, least recently used first, within ``max_bytes``.

    Where they exceed that, the least recently used one goes of those spaces that have more than an equal share or were
    idle for ``PROTECTED_S``: a space at work keeps its share, and has more while nobody else wants it.
    """

    def __init__(self, denoiser: Denoiser, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._denoiser, self._max_bytes, self._clock = denoiser, max_bytes, clock
        self._entries: list[_Entry] = []
        self._last_given: dict[str, float] = {}
        self._position_bytes = SequenceCache.create(denoiser, KEY_BUCKET).num_bytes // KEY_BUCKET

    @property
    def num_bytes(self) -> int:
        """Memory held by idle caches, in bytes."""
        return sum(entry.cache.num_bytes for entry in self._entries)

    @property
    def num_entries(self) -> int:
        """Idle caches."""
        return len(self._entries)

    def bytes_for(self, num_prompt: int, num_answer: int) -> int:
        """Memory that a sequence takes at most, in bytes."""
        return round_up(num_prompt + num_answer + DRAFT_ROOM, KEY_BUCKET) * self._position_bytes

    def take(self, tokens: Sequence[int], num_answer: int, space: str = OWNER.space) -> tuple[SequenceCache, int]:
        """A cache for ``tokens`` with the longest reusable prefix that ``space`` has, and that prefix's length.

        At least the last token is left to compute: its row makes the first logits. The caller owns the cache until
        it is given back.
        """
        capacity = len(tokens) + num_answer + DRAFT_ROOM
        wanted = np.asarray(tokens, dtype=np.int64)
        best, shared = None, 0
        for entry in self._entries:
            if entry.space != space:
                continue
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

    def give(self, tokens: Sequence[int], cache: SequenceCache, space: str = OWNER.space) -> None:
        """Keep a cache whose committed positions are the first of ``tokens``, for requests of ``space``."""
        length = self.reusable(cache.length)
        if length == 0:
            return
        cache.crop(length)
        self._entries.append(_Entry(space, np.asarray(tokens[:length], dtype=np.int64), cache))
        self._last_given[space] = self._clock()
        self._drop_excess()

    def _drop_excess(self) -> None:
        held: dict[str, int] = {}
        for entry in self._entries:
            held[entry.space] = held.get(entry.space, 0) + entry.cache.num_bytes
        now = self._clock()
        self._last_given = {space: at for space, at in self._last_given.items() if space in held}
        while (total := sum(held.values())) > self._max_bytes:
            share = min(total, self._max_bytes) / len(held)
            index = next(
                index
                for index, entry in enumerate(self._entries)
                if held[entry.space] > share or now - self._last_given[entry.space] > PROTECTED_S
            )
            dropped = self._entries.pop(index)
            held[dropped.space] -= dropped.cache.num_bytes
            if not held[dropped.space]:
                del held[dropped.space]

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
