"""Accounts as plain values: what the store takes and returns, and their JSON. No database here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from diffusion_core.callers import Scope
from diffusion_core.errors import InvalidRequest

MAX_LIMIT = 1_000_000_000


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody with tokens. A limit that is None is the server's default; 0 is none at all."""

    id: int
    name: str
    created_at: datetime
    is_disabled: bool
    workspace: str | None
    requests_per_minute: int | None
    requests_at_once: int | None
    max_request_bytes: int | None
    num_tokens: int  # that can be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token without its secret. ``beginning`` is what its owner recognises it by."""

    id: int
    user: str
    name: str
    beginning: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def is_usable(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Users who may reuse each other's cached prompts."""

    id: int
    name: str
    created_at: datetime
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Something that an administrator did. ``detail`` holds names, numbers and times, never a secret."""

    id: int
    at: datetime
    actor: str
    action: str
    target: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Keep(Enum):
    """What a change leaves as it is: None has a meaning of its own."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
LIMIT_NAMES = ("requests_per_minute", "requests_at_once", "max_request_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChanges:
    """What to change of a user. A limit of None is the server's, 0 is no limit; a workspace of None is none."""

    is_disabled: bool | Keep = KEEP
    requests_per_minute: int | Keep | None = KEEP
    requests_at_once: int | Keep | None = KEEP
    max_request_bytes: int | Keep | None = KEEP
    workspace: str | Keep | None = KEEP

    def limits(self) -> dict[str, int | None]:
        """The limits that change.

        Raises:
            InvalidRequest: one is negative or beyond all sense.
        """
        named = {name: getattr(self, name) for name in LIMIT_NAMES}
        found = {name: value for name, value in named.items() if value is not KEEP}
        for name, value in found.items():
            if value is not None and not 0 <= value <= MAX_LIMIT:
                raise InvalidRequest(f"{name} is {value}: allowed is 0 (no limit) to {MAX_LIMIT}")
        return found


def as_json(record: User | Token | Workspace | AuditEntry) -> dict[str, Any]:
    """The record for a JSON document; scripts rely on these names. Times are ISO 8601 in UTC."""
    return {each.name: _plain(getattr(record, each.name)) for each in fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    return list(value) if isinstance(value, tuple) else value
