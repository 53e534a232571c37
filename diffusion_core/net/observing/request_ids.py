"""Ids and traces that a client or a proxy sends along: taken over only if they are what they say they are."""

from __future__ import annotations

import re

# As in messages: no line breaks, no escapes, no room for code.
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# W3C Trace Context, level 1: version, trace, parent, flags; all-zero ids are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

REQUEST_ID_HEADER = b"x-request-id"


def valid_request_id(text: str) -> str:
    """``text`` if it can be a request's id, else nothing."""
    return text if _ID.fullmatch(text) else ""


def valid_traceparent(text: str) -> str:
    """``text`` if it is a W3C traceparent header, else nothing."""
    return text if _TRACEPARENT.fullmatch(text) else ""
