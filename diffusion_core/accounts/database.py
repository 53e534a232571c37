"""The connection to the accounts' database: a SQLite file of this machine, or PostgreSQL for several servers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from diffusion_core.config import state_folder
from diffusion_core.errors import AccountsUnavailable, ConfigError

FILE_NAME = "server.db"
_BUSY_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 10_000

logger = logging.getLogger(__name__)


def default_url() -> str:
    """A file beside the engine's other state."""
    return f"sqlite:///{state_folder() / FILE_NAME}"


def parse_url(text: str) -> URL:
    """The address of a database; empty means :func:`default_url`.

    Raises:
        ConfigError: it is none, or of a database that is not supported. The message does not repeat it: it may hold a
            password.
    """
    try:
        url = make_url(text or default_url())
    except (ArgumentError, ValueError):
        raise ConfigError(
            "server.database_url is no address of a database: for instance sqlite:////var/lib/unmask/server.db or "
            "postgresql://user:password@host/name"
        ) from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError("server.database_url names no file: give sqlite:////absolute/path/server.db")
        return url.set(drivername="sqlite")
    if kind in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"server.database_url is of kind {kind!r}: supported are sqlite and postgresql")


class Database:
    """A pool of connections; threads may share it.

    Raises:
        ConfigError: the address is wrong, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _make_private(self.file)
        settings = _SQLITE_SETTINGS if self.is_sqlite else _POSTGRESQL_SETTINGS
        try:
            # Without its parameters: a statement in a log must not show a digest or a name.
            self.engine = create_engine(self.url, hide_parameters=True, pool_pre_ping=not self.is_sqlite, **settings)
        except (ImportError, NoSuchModuleError):
            raise ConfigError("server.database_url needs a driver: pip install 'unmask[team]'") from None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._writer = self.engine.execution_options(writes=True)

    @property
    def file(self) -> Path:
        """The file of a SQLite database."""
        assert self.is_sqlite and self.url.database
        return Path(self.url.database)

    def describe(self) -> str:
        """The address for people, without its password."""
        return self.url.set(drivername=self.url.get_backend_name()).render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads.

        Raises:
            AccountsUnavailable: the database cannot be reached.
        """
        with _translated(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that is committed at its end, or rolled back by an exception.

        Raises:
            AccountsUnavailable: the database cannot be reached.
        """
        with _translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def connecting(self) -> Iterator[Connection]:
        """A connection for changes of the schema, committed at its end.

        Raises:
            ConfigError: the database cannot be reached; the message has its own words.
        """
        try:
            with self._writer.execution_options(alters=True).begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(error.orig).strip() if isinstance(error, DBAPIError) else type(error).__name__
            raise ConfigError(f"server.database_url: {self.describe()} cannot be used: {reason}") from None

    def close(self) -> None:
        """Close all connections that are not in use."""
        self.engine.dispose()


_SQLITE_SETTINGS: dict[str, Any] = {
    # Transactions begin where we say so, not where Python's driver guesses.
    "connect_args": {"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False, "isolation_level": None}
}
_POSTGRESQL_SETTINGS: dict[str, Any] = {
    "pool_timeout": _CONNECT_TIMEOUT_S,
    "connect_args": {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "application_name": "unmask",
        "options": f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}",
    },
}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        logger.warning("the accounts' database failed: %s", type(getattr(error, "orig", None) or error).__name__)
        raise AccountsUnavailable("the database of users and tokens cannot be reached: try again shortly") from error


def _make_private(path: Path) -> None:
    """A file that only its owner can read, before SQLite would make one for everybody; its journals follow its mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(f"server.database_url: cannot use {path}: {error.strerror}") from None
    if path.stat().st_mode & 0o077:
        logger.warning("%s can be read by other users of this machine: run chmod 600 on it", path)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for a writer


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes would fail, instead of waiting, when another one wrote between.
    options = connection.get_execution_options()
    mode = "IMMEDIATE" if options.get("writes") else "DEFERRED"
    # A table is altered by copying and dropping it, which must not take along what refers to it.
    connection.exec_driver_sql(f"PRAGMA foreign_keys={'OFF' if options.get('alters') else 'ON'}")
    connection.exec_driver_sql(f"BEGIN {mode}")
