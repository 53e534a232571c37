"""Users and tokens in the database: every change is one transaction, with its line in the audit log.

``actor`` is who asks for a change: ``cli:NAME`` of the operating system, or the user of an administrator's token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from diffusion_core.accounts.convert import Grant, as_entry, as_grant, as_token, as_user, as_workspace
from diffusion_core.accounts.database import Database
from diffusion_core.accounts.naming import check_label, check_name
from diffusion_core.accounts.records import (
    KEEP,
    AuditEntry,
    Keep,
    Token,
    User,
    UserChanges,
    Workspace,
    now,
)
from diffusion_core.accounts.tables import AuditRow, ChangeRow, TokenRow, UserRow, WorkspaceRow
from diffusion_core.accounts.tokens import beginning_of, digest_of, make_token
from diffusion_core.callers import Limits, Scope
from diffusion_core.errors import Conflict, NotFound

MAX_AUDIT_ENTRIES = 1000


class Accounts:
    """The store. All methods block on the database and may be called from any thread.

    ``on_change`` is called after each committed change, by the thread that made it. All methods raise
    :class:`~diffusion_core.errors.AccountsUnavailable` if the database cannot be reached.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.on_change: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def describe(self) -> str:
        """Which database this is, without its password."""
        return self._database.describe()

    def add_user(self, name: str, *, actor: str, changes: UserChanges | None = None) -> User:
        """Make a user.

        Raises:
            InvalidRequest: the name or a limit is not allowed.
            Conflict: there is one of this name.
            NotFound: there is no such workspace.
        """
        changes = changes or UserChanges()
        limits = changes.limits()
        with self._changing() as session:
            row = UserRow(name=check_name(name, "user"), created_at=now(), **limits)
            session.add(row)
            _flush(session, f"there is a user {name} already")
            _note(session, actor, "user.add", name, limits)
            _move(session, row, changes.workspace, actor)
            return as_user(row)

    def change_user(self, name: str, changes: UserChanges, *, actor: str) -> User:
        """Change a user.

        Raises:
            NotFound: there is no such user, or no such workspace.
            InvalidRequest: a limit is not allowed.
        """
        limits = changes.limits()
        with self._changing() as session:
            row = _find_user(session, name)
            if changes.is_disabled is not KEEP and changes.is_disabled != (row.disabled_at is not None):
                row.disabled_at = now() if changes.is_disabled else None
                _note(session, actor, "user.disable" if changes.is_disabled else "user.enable", name)
            if limits:
                for limit, value in limits.items():
                    setattr(row, limit, value)
                _note(session, actor, "user.set", name, limits)
            _move(session, row, changes.workspace, actor)
            return as_user(row)

    def remove_user(self, name: str, *, actor: str) -> None:
        """Remove a user and all of their tokens; the audit log keeps what it says of them.

        Raises:
            NotFound: there is no such user.
        """
        with self._changing() as session:
            row = _find_user(session, name)
            _note(session, actor, "user.remove", name, {"tokens": len(row.tokens)})
            session.delete(row)

    def user(self, name: str) -> User:
        """One user.

        Raises:
            NotFound: there is no such user.
        """
        with self._database.reading() as session:
            return as_user(_find_user(session, name))

    def users(self) -> list[User]:
        """All users, by name."""
        with self._database.reading() as session:
            rows = session.scalars(
                select(UserRow)
                .options(selectinload(UserRow.tokens), selectinload(UserRow.workspace))
                .order_by(UserRow.name)
            )
            return [as_user(row) for row in rows]

    def add_workspace(self, name: str, *, actor: str) -> Workspace:
        """Make a workspace without members.

        Raises:
            InvalidRequest: the name is not allowed.
            Conflict: there is one of this name.
        """
        with self._changing() as session:
            row = WorkspaceRow(name=check_name(name, "workspace"), created_at=now())
            session.add(row)
            _flush(session, f"there is a workspace {name} already")
            _note(session, actor, "workspace.add", name)
            return as_workspace(row)

    def remove_workspace(self, name: str, *, actor: str) -> None:
        """Remove a workspace; its members go on by themselves.

        Raises:
            NotFound: there is no such workspace.
        """
        with self._changing() as session:
            row = _find_workspace(session, name)
            _note(session, actor, "workspace.remove", name, {"members": [user.name for user in row.members]})
            session.delete(row)  # takes the members out first

    def workspaces(self) -> list[Workspace]:
        """All workspaces, by name."""
        with self._database.reading() as session:
            query = select(WorkspaceRow).options(selectinload(WorkspaceRow.members)).order_by(WorkspaceRow.name)
            return [as_workspace(row) for row in session.scalars(query)]

    def create_token(
        self, user: str, *, actor: str, scopes: tuple[Scope, ...], name: str = "", lifetime: timedelta | None = None
    ) -> tuple[Token, str]:
        """Make a token; returns it with its secret, which nobody can read again.

        Raises:
            NotFound: there is no such user.
            InvalidRequest: the name is not allowed.
        """
        secret = make_token()
        with self._changing() as session:
            owner = _find_user(session, user)
            row = TokenRow(
                user=owner, name=check_label(name), beginning=beginning_of(secret), digest=digest_of(secret),
                scopes=" ".join(scope.value for scope in scopes), created_at=now(),
                expires_at=now() + lifetime if lifetime is not None else None,
            )  # fmt: skip
            session.add(row)
            session.flush()
            expires = row.expires_at.isoformat(timespec="seconds") if row.expires_at else None
            detail = {"token": row.id, "name": name, "scopes": [scope.value for scope in scopes], "expires": expires}
            _note(session, actor, "token.create", user, detail)
            return as_token(row), secret

    def tokens(self, user: str | None = None) -> list[Token]:
        """All tokens, or those of ``user``, also ended ones; the oldest first.

        Raises:
            NotFound: there is no such user.
        """
        with self._database.reading() as session:
            query = select(TokenRow).options(selectinload(TokenRow.user)).order_by(TokenRow.id)
            if user is not None:
                query = query.where(TokenRow.user_id == _find_user(session, user).id)
            return [as_token(row) for row in session.scalars(query)]

    def revoke_token(self, token_id: int, *, actor: str) -> Token:
        """End a token, for good; a token that was revoked before stays so.

        Raises:
            NotFound: there is no such token.
        """
        with self._changing() as session:
            row = session.get(TokenRow, token_id)
            if row is None:
                raise NotFound(f"there is no token {token_id}")
            if row.revoked_at is None:
                row.revoked_at = now()
                _note(session, actor, "token.revoke", row.user.name, {"token": row.id, "name": row.name})
            return as_token(row)

    def revoke_tokens_of(self, user: str, *, actor: str) -> list[Token]:
        """End all tokens of a user; returns those that ended now.

        Raises:
            NotFound: there is no such user.
        """
        with self._changing() as session:
            ended = [row for row in _find_user(session, user).tokens if row.revoked_at is None]
            for row in ended:
                row.revoked_at = now()
                _note(session, actor, "token.revoke", user, {"token": row.id, "name": row.name})
            return [as_token(row) for row in ended]

    def audit(self, limit: int = 100, *, before: int | None = None) -> list[AuditEntry]:
        """The last ``limit`` entries of the audit log, the newest first; ``before`` continues after an entry's id."""
        query = select(AuditRow).order_by(AuditRow.id.desc()).limit(min(limit, MAX_AUDIT_ENTRIES))
        if before is not None:
            query = query.where(AuditRow.id < before)
        with self._database.reading() as session:
            return [as_entry(row) for row in session.scalars(query)]

    def change_number(self) -> int:
        """How many changes there have been: servers compare it to see whether to load the grants anew."""
        with self._database.reading() as session:
            return session.execute(select(ChangeRow.number)).scalar_one()

    def grants(self, defaults: Limits) -> tuple[int, list[Grant]]:
        """The number of changes, and what all usable tokens give; ``defaults`` fill in where a user has no limit."""
        with self._database.reading() as session:
            # First the number: a change between the two reads is then seen again, not missed.
            number = session.execute(select(ChangeRow.number)).scalar_one()
            query = select(TokenRow).join(TokenRow.user).options(selectinload(TokenRow.user))
            query = query.where(TokenRow.revoked_at.is_(None), UserRow.disabled_at.is_(None))
            return number, [as_grant(row, defaults) for row in session.scalars(query)]

    def note_uses(self, uses: Mapping[int, datetime]) -> None:
        """Write down when tokens (by id) were last used."""
        with self._database.writing() as session:
            for token_id, at in uses.items():
                session.execute(update(TokenRow).where(TokenRow.id == token_id).values(last_used_at=at))

    @contextmanager
    def _changing(self) -> Iterator[Session]:
        with self._database.writing() as session:
            # One change after the other: whoever is second waits here.
            session.execute(update(ChangeRow).values(number=ChangeRow.number + 1))
            yield session
        self.on_change()


def _flush(session: Session, conflict: str) -> None:
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(conflict) from None


def _note(session: Session, actor: str, action: str, target: str, detail: Mapping[str, Any] | None = None) -> None:
    session.add(AuditRow(at=now(), actor=actor[:128], action=action, target=target, detail=dict(detail or {})))


def _find_user(session: Session, name: str) -> UserRow:
    row = session.scalar(select(UserRow).where(UserRow.name == name))
    if row is None:
        raise NotFound(f"there is no user {name[:64]!r}")
    return row


def _find_workspace(session: Session, name: str) -> WorkspaceRow:
    row = session.scalar(select(WorkspaceRow).where(WorkspaceRow.name == name))
    if row is None:
        raise NotFound(f"there is no workspace {name[:64]!r}")
    return row


def _move(session: Session, row: UserRow, workspace: str | Keep | None, actor: str) -> None:
    if workspace is KEEP or workspace == (row.workspace.name if row.workspace else None):
        return
    row.workspace = _find_workspace(session, workspace) if workspace is not None else None
    _note(session, actor, "user.move", row.name, {"workspace": workspace})
