"""What accounts may be called. Names reach logs, metrics, addresses and terminals, so they are plain."""

from __future__ import annotations

import re

from diffusion_core.callers import Scope
from diffusion_core.errors import InvalidRequest

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_MAX_LABEL = 64


def check_name(name: str, what: str) -> str:
    """The name of a user or a workspace.

    Raises:
        InvalidRequest: it has other characters, or too many.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"the name of a {what} is 1 to 64 of a-z, 0-9 and . _ @ -, the first a letter or a digit")
    return name


def check_label(label: str) -> str:
    """What a token is called by its owner, for instance the machine it is for.

    Raises:
        InvalidRequest: it is too long or holds control characters.
    """
    if len(label) > _MAX_LABEL or not label.isprintable():
        raise InvalidRequest(f"the name of a token is at most {_MAX_LABEL} printable characters")
    return label


def parse_scopes(names: list[str]) -> tuple[Scope, ...]:
    """Scopes by their names, each once, in a fixed order.

    Raises:
        InvalidRequest: a name is unknown, or there is none.
    """
    known = [scope.value for scope in Scope]
    for name in names:
        if name not in known:
            raise InvalidRequest(f"{name[:20]!r} is no scope: known are {', '.join(known)}")
    if not names:
        raise InvalidRequest(f"a token without a scope is good for nothing: give some of {', '.join(known)}")
    return tuple(scope for scope in Scope if scope.value in names)
