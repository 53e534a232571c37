"""Bringing a database to the shape that this version of Unmask expects."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from sqlalchemy import Connection, text

from diffusion_core.accounts.database import Database
from diffusion_core.errors import ConfigError

_LOCK_TIMEOUT_S = 60
_LOCK_NUMBER = 0x756E6D61736B  # "unmask": a lock of PostgreSQL that all who migrate take

logger = logging.getLogger(__name__)


def newest_revision() -> str:
    """The revision that this version of Unmask works with."""
    return _scripts().get_current_head() or ""


def all_revisions() -> list[str]:
    """All revisions, the oldest first."""
    return [script.revision for script in reversed(list(_scripts().walk_revisions()))]


def current_revision(database: Database) -> str:
    """The revision of a database; empty if it holds no tables of ours yet.

    Raises:
        ConfigError: it cannot be reached.
    """
    with database.connecting() as connection:
        return _revision_of(connection)


def upgrade(database: Database, target: str = "head") -> tuple[str, str]:
    """Bring a database to ``target``; the revisions before and after. Several processes may call it at once.

    Raises:
        ConfigError: it cannot be reached, was made by a newer Unmask, or another process has held the lock for long.
    """
    with _locked(database) as connection:
        before = _revision_of(connection)
        _refuse_newer(before)
        config = Config()
        config.set_main_option("script_location", str(_folder()))
        config.attributes["connection"] = connection
        command.upgrade(config, target)
        if database.is_sqlite:
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            assert not broken, "a migration left rows that refer to nothing"
        after = _revision_of(connection)
    if before != after:
        logger.info("the accounts' database went from revision %s to %s", before or "(none)", after)
    return before, after


def check_revision(database: Database) -> None:
    """Make sure that the database has the expected shape, or is empty: then it is made.

    Raises:
        ConfigError: it is of another version; the message says what to do.
    """
    found = current_revision(database)
    if not found:
        upgrade(database)
    elif found != newest_revision():
        _refuse_newer(found)
        raise ConfigError(
            f"the accounts' database is of revision {found}, this Unmask works with {newest_revision()}: "
            "run `unmask database upgrade`, or restart the server, which does the same"
        )


def _refuse_newer(revision: str) -> None:
    if revision and revision not in all_revisions():
        raise ConfigError(
            f"the accounts' database is of revision {revision}, which this Unmask does not know: "
            "it was made by a newer one; install that"
        )


def _revision_of(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""


@contextmanager
def _locked(database: Database) -> Iterator[Connection]:
    if not database.is_sqlite:
        with database.connecting() as connection:
            # Released with the transaction, so also when this process dies.
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
            yield connection
        return
    lock = FileLock(f"{database.file}.lock", timeout=_LOCK_TIMEOUT_S, mode=0o600)
    try:
        with lock, database.connecting() as connection:
            yield connection
    except Timeout:
        raise ConfigError(f"another process has been upgrading {database.file} for {_LOCK_TIMEOUT_S} s") from None


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_folder()))


def _folder() -> Path:
    return Path(__file__).parent / "migrations"
