"""Logging that cannot leak: exceptions without their messages, because messages may quote the user's code."""

from __future__ import annotations

import traceback
from pathlib import Path

_MAX_FRAMES = 12


def describe_exception(error: BaseException) -> str:
    """The types of an exception and its causes and the innermost frames, without any message or source line."""
    parts = []
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)[-_MAX_FRAMES:]
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
        parts.append(f"{type(current).__module__}.{type(current).__qualname__} at {places or 'an unknown place'}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "; caused by ".join(parts)
