"""API tokens: how they are made, hashed and recognised. A token itself is never kept.

A token is 256 random bits, so its plain SHA-256 cannot be searched through and needs no salt and no slow hash: those
protect secrets that people choose.
"""

from __future__ import annotations

import hashlib
import secrets

MARK = "unmask_"  # what scanners for leaked secrets look for: unmask_[0-9a-f]{64}
_NUM_BYTES = 32
_NUM_SHOWN = 6


def make_token() -> str:
    """A fresh token: ``unmask_`` and 64 hexadecimal digits."""
    return MARK + secrets.token_hex(_NUM_BYTES)


def digest_of(token: str) -> bytes:
    """The 32 bytes by which a token is known. Any text is allowed: what is no token has the digest of none."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def beginning_of(token: str) -> str:
    """What may be shown of a token, so that its owner recognises it: too little to guess the rest."""
    return token[: len(MARK) + _NUM_SHOWN]
