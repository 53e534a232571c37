"""Which replica of an engine a request belongs to: the one that has most of its prompt already.

Rendezvous hashing: each replica draws a number for the key, and the highest one has it. When a replica comes or goes,
only the keys of that replica move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from diffusion_core.callers import Caller
from diffusion_core.requests import CompletionRequest, EditRequest, WarmRequest

_NUM_CHARACTERS = 256


def affinity_key(caller: Caller, request: CompletionRequest | EditRequest | WarmRequest) -> str:
    """What requests with a common prompt have in common: whose they are and the file they are about.

    A request that names no file goes by the beginning of its text. The key is a digest: it holds no code.
    """
    inner = request.completion or request.edit if isinstance(request, WarmRequest) else request
    assert inner is not None
    text = inner.path or (inner.prefix if isinstance(inner, CompletionRequest) else inner.before)[:_NUM_CHARACTERS]
    return _digest(caller.space, text).hex()


def rank(key: str, replicas: Iterable[str]) -> list[str]:
    """The replicas, the one that ``key`` belongs to first; the others in the order in which they stand in for it."""
    return sorted(replicas, key=lambda replica: _digest(key, replica), reverse=True)


def _digest(*parts: str) -> bytes:
    # Lengths between the parts: ("ab", "c") is not ("a", "bc").
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).digest()
