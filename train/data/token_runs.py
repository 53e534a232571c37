"""Lexical tokens of any language, and hashes of all runs of so many of them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

# A run of one punctuation mark is one token: a ruler of fifty dashes is no fifty tokens.
_TOKENS = re.compile(r"\w+|([^\w\s])\1*")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def split_tokens(text: str) -> list[str]:
    """Words, and runs of one punctuation mark; white space does not count."""
    return [match.group() for match in _TOKENS.finditer(text)]


def hash_runs(tokens: list[str], length: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of every run of ``length`` tokens [max(0, T - length + 1)]."""
    return dict(roll_runs(hash_tokens(tokens), [length])).get(length, np.zeros(0, dtype=np.uint64))


def hash_tokens(tokens: list[str]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of every token [T]."""
    letters = [token.encode("utf-8", "surrogatepass") for token in tokens]
    # Two 32-bit sums, so that one collision of the first does not make two tokens the same.
    single = np.array([zlib.crc32(raw) << 32 | zlib.adler32(raw) for raw in letters], dtype=np.uint64)
    single ^= single >> np.uint64(29)
    single *= np.uint64(0xBF58476D1CE4E5B9)
    return single


def roll_runs(single: npt.NDArray[np.uint64], lengths: Collection[int]) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """For each of ``lengths``, rising, the hashes of all runs of so many tokens, from those of the tokens."""
    total = np.zeros(len(single), dtype=np.uint64)
    for length in range(1, min(max(lengths), len(single)) + 1):  # a polynomial in the multiplier, modulo 2^64
        total = total[: len(single) - length + 1] * _MULTIPLIER + single[length - 1 :]
        if length in lengths:
            yield length, total ^ (total >> np.uint64(32))
