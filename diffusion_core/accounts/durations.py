"""How long a token lives, as a person writes it: ``90d``, ``12h``, ``2w``, ``never``."""

from __future__ import annotations

import re
from datetime import timedelta

from diffusion_core.errors import InvalidRequest

NEVER = "never"
MAX_DAYS = 3650
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([mhdw])")


def parse_duration(text: str) -> timedelta | None:
    """The duration; None for ``never``.

    Raises:
        InvalidRequest: it is none, or longer than ten years.
    """
    if text == NEVER:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"{text[:20]!r} is no duration: write 30m, 12h, 90d, 2w or never")
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])})
    if duration > timedelta(days=MAX_DAYS):
        raise InvalidRequest(f"{text} is longer than {MAX_DAYS} days: write never for a token that does not expire")
    return duration
