"""JSON bodies of the administration: read with a limit, checked field by field, never repeated in an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from diffusion_core.errors import ContextTooLong, InvalidRequest
from diffusion_core.net.exchange import ClientGoneError

MAX_BYTES = 64 * 1024
_NAMES = {str: "text", int: "a whole number", bool: "true or false", list: "a list of texts", type(None): "null"}

Kinds = Mapping[str, tuple[type, ...]]


async def read_fields(request: Request, known: Kinds, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of the object in the body, each of one of its ``known`` types; absent ones are left out.

    Raises:
        InvalidRequest: no JSON object, an unknown field, a wrong type, or a ``required`` field is missing.
        ContextTooLong: the body is larger than :data:`MAX_BYTES`.
        ClientGoneError: the client left before the body was complete.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise InvalidRequest("the header content-type must be application/json")
    try:
        document = json.loads(await _read_body(request))
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is no JSON document") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object")
    for name in required:
        if name not in document:
            raise InvalidRequest(f"{name}: missing field")
    for name, value in document.items():
        if name not in known:
            raise InvalidRequest(f"unknown field: known are {', '.join(known)}")
        _check(name, value, known[name])
    return document


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BYTES:
                raise ContextTooLong(f"the body has more than {MAX_BYTES} bytes")
    except ClientDisconnect:
        raise ClientGoneError from None
    return bytes(body)


def _check(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    # By type, not by isinstance: true is no number.
    if type(value) not in kinds:
        raise InvalidRequest(f"{name}: {' or '.join(_NAMES[kind] for kind in kinds)} expected")
    texts = value if isinstance(value, list) else [value]
    if isinstance(value, list) and any(type(text) is not str for text in texts):
        raise InvalidRequest(f"{name}: {_NAMES[list]} expected")
    try:
        for text in texts:
            str(text).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name}: half a surrogate pair is no text") from None
