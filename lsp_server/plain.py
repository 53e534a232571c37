"""JSON objects as pygls hands them out, made plain again."""

from __future__ import annotations

from typing import Any


def as_plain(value: Any) -> Any:
    """Dicts and lists, whatever pygls made of JSON objects."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    return value
