"""Rows of the database as the values that everybody else sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from diffusion_core.accounts.records import LIMIT_NAMES, AuditEntry, Token, User, Workspace, now
from diffusion_core.accounts.tables import AuditRow, TokenRow, UserRow, WorkspaceRow
from diffusion_core.callers import Caller, Limits, Scope


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token gives to whom, until when."""

    token_id: int
    digest: bytes
    caller: Caller
    expires_at: datetime | None


def as_user(row: UserRow) -> User:
    """A user, with the number of tokens that can be used."""
    at = now()
    return User(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        is_disabled=row.disabled_at is not None,
        workspace=row.workspace.name if row.workspace else None,
        requests_per_minute=row.requests_per_minute,
        requests_at_once=row.requests_at_once,
        max_request_bytes=row.max_request_bytes,
        num_tokens=sum(as_token(token).is_usable(at) for token in row.tokens),
    )


def as_workspace(row: WorkspaceRow) -> Workspace:
    """A workspace with its members."""
    members = tuple(user.name for user in row.members)
    return Workspace(id=row.id, name=row.name, created_at=row.created_at, members=members)


def as_token(row: TokenRow) -> Token:
    """A token without what it is found by."""
    return Token(
        id=row.id,
        user=row.user.name,
        name=row.name,
        beginning=row.beginning,
        scopes=_scopes(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def as_entry(row: AuditRow) -> AuditEntry:
    """A line of the audit log."""
    return AuditEntry(id=row.id, at=row.at, actor=row.actor, action=row.action, target=row.target, detail=row.detail)


def as_grant(row: TokenRow, defaults: Limits) -> Grant:
    """What a token gives; ``defaults`` are the limits of users who have none of their own."""
    owner = row.user
    own = {name: getattr(owner, name) for name in LIMIT_NAMES}
    limits = Limits(**{name: getattr(defaults, name) if value is None else value for name, value in own.items()})
    # By number, not by name: a name may be given again, a cache must not.
    space = f"workspace-{owner.workspace_id}" if owner.workspace_id else f"user-{owner.id}"
    caller = Caller(user=owner.name, space=space, scopes=frozenset(_scopes(row)), limits=limits)
    return Grant(token_id=row.id, digest=row.digest, caller=caller, expires_at=row.expires_at)


def _scopes(row: TokenRow) -> tuple[Scope, ...]:
    return tuple(Scope(name) for name in row.scopes.split())
