"""Deduplication: exact copies by hash, near copies by MinHash over runs of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from train.data.token_runs import hash_runs, split_tokens

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]


@dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """``threshold`` is the share of common runs (Jaccard) from which on two texts are the same."""

    threshold: float = 0.7
    run_tokens: int = 5
    num_permutations: int = 64
    seed: int = 1


@dataclass(frozen=True)
class DedupResult:
    """Positions of the texts that stay, in order, and how many copies of each sort went."""

    kept: tuple[int, ...]
    num_exact: int
    num_near: int


def deduplicate(texts: Sequence[str], config: DedupConfig) -> DedupResult:
    """Keep the first of every group of equal or nearly equal texts; white space does not count."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=config.threshold, num_perm=config.num_permutations)
    empty = MinHash(num_perm=config.num_permutations, seed=config.seed, hashfunc=int)
    seen: set[bytes] = set()
    sketches: dict[int, MinHash] = {}
    num_exact = num_near = 0
    for number, text in enumerate(texts):
        tokens = split_tokens(text)
        digest = hashlib.sha256(" ".join(tokens).encode("utf-8", "surrogatepass")).digest()
        if digest in seen:
            num_exact += 1
            continue
        seen.add(digest)
        sketch = empty.copy()
        runs = hash_runs(tokens, min(config.run_tokens, max(len(tokens), 1)))
        sketch.update_batch(np.unique(runs >> np.uint64(32)).tolist())
        if _has_near(index, sketches, sketch, config.threshold):
            num_near += 1
            continue
        index.insert(number, sketch)
        sketches[number] = sketch
    return DedupResult(tuple(sketches), num_exact, num_near)


def _has_near(index: MinHashLSH, sketches: dict[int, MinHash], sketch: MinHash, threshold: float) -> bool:
    """Whether a text like this one was kept; the index finds candidates, the sketches decide."""
    return any(sketch.jaccard(sketches[number]) >= threshold for number in index.query(sketch))
