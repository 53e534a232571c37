"""The one JSON object that our commands take: checked field by field, with messages that name the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lsprotocol import types

from lsp_server.reporting import invalid_params
from lsp_server.server import UnmaskServer

Kinds = Mapping[str, tuple[type, ...]]


def one_object(params: types.ExecuteCommandParams) -> dict[str, Any]:
    """The argument of a command that takes one object."""
    arguments = params.arguments or []
    if len(arguments) != 1 or not isinstance(arguments[0], dict):
        raise invalid_params(f"{params.command} takes one object as its argument")
    return arguments[0]


def check_fields(argument: Mapping[str, Any], kinds: Kinds, required: tuple[str, ...], what: str) -> None:
    """Refuse an object that lacks a required field, has an unknown one, or one of another type."""
    for name in required:
        if name not in argument:
            raise invalid_params(f"{name} is missing")
    for name, value in argument.items():
        if name not in kinds:
            raise invalid_params(f"{name} is not a field of {what}: known are {', '.join(kinds)}")
        # true is an int to Python, not to JSON
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and bool not in kinds[name]):
            raise invalid_params(f"{name} must be {' or '.join(kind.__name__ for kind in kinds[name])}")


def range_in(ls: UnmaskServer, value: Any) -> types.Range:
    """A range from its JSON."""
    try:
        wanted: types.Range = ls.protocol._converter.structure(value, types.Range)
        places = (wanted.start.line, wanted.start.character, wanted.end.line, wanted.end.character)
        if not all(type(place) is int and place >= 0 for place in places):
            raise ValueError
    except Exception:  # cattrs raises groups of anything here
        raise invalid_params("range must be {start: {line, character}, end: {line, character}}") from None
    return wanted
