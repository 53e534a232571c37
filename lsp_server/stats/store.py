"""The file of the statistics: SQLite, because several language servers of one user write to it at once.

Every write is one transaction; what is older than a season or beyond a number of rows is removed. The file is readable
by its owner only.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_core.config import state_folder
from lsp_server.stats.records import Count, Fate

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger(__name__)

FILE_NAME = "statistics.sqlite3"
VERSION = 1
KEPT_DAYS = 90
MAX_FATES = 20_000
BUSY_TIMEOUT_S = 5.0

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS fates (
        id TEXT PRIMARY KEY, time REAL NOT NULL, language TEXT NOT NULL, model TEXT NOT NULL,
        num_chars INTEGER NOT NULL, num_lines INTEGER NOT NULL, is_shown INTEGER, is_dismissed INTEGER NOT NULL,
        is_accepted INTEGER NOT NULL, num_accepted INTEGER NOT NULL, kept_soon REAL, kept_late REAL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS fates_by_time ON fates (time)",
    """CREATE TABLE IF NOT EXISTS counts (
        hour INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, bucket INTEGER NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY (hour, kind, name, bucket)
    ) WITHOUT ROWID""",
)
_COLUMNS = tuple(field.name for field in fields(Fate))


class StoreError(Exception):
    """The statistics cannot be read or written; the message says why, for people."""


def default_path() -> Path:
    """Where the statistics of this user are kept."""
    return state_folder() / FILE_NAME


class Store:
    """One statistics file. Every call opens and closes it, so that it can be used from any thread."""

    def __init__(self, path: Path, *, max_fates: int = MAX_FATES, kept_days: int = KEPT_DAYS) -> None:
        self.path = path
        self._max_fates, self._kept_days = max_fates, kept_days

    def write(self, fates: Sequence[Fate], counts: Mapping[Count, int]) -> None:
        """Add counts, and add or replace fates; a damaged file is put aside first.

        Raises:
            StoreError: it cannot be written.
        """
        import sqlite3

        try:
            self._write(fates, counts)
        except sqlite3.DatabaseError as error:
            if not _is_damaged(error):
                raise StoreError(_explain(self.path, error)) from None
            with contextlib.suppress(OSError):
                self.path.replace(self.path.with_suffix(".damaged"))
            logger.warning("the statistics were damaged and begin anew")
            try:
                self._write(fates, counts)
            except sqlite3.DatabaseError as again:
                raise StoreError(_explain(self.path, again)) from None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None

    def fates(self, since: float = 0.0) -> list[Fate]:
        """The suggestions made since a time (seconds since 1970), oldest first.

        Raises:
            StoreError: it cannot be read.
        """
        with self._reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM fates WHERE time >= ? ORDER BY time",  # noqa: S608 - our own names
                (since,),
            )
            return [_fate(row) for row in rows]

    def counts(self, since: float = 0.0) -> Counter[Count]:
        """What was counted since the hour of a time.

        Raises:
            StoreError: it cannot be read.
        """
        with self._reading() as connection:
            if connection is None:
                return Counter()
            rows = connection.execute(
                "SELECT hour, kind, name, bucket, n FROM counts WHERE hour >= ?", (int(since // 3600),)
            )
            return Counter({Count(*row[:4]): row[4] for row in rows})

    def _write(self, fates: Sequence[Fate], counts: Mapping[Count, int]) -> None:
        import sqlite3

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(self.path, BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            _prepare(connection, self.path)
            marks = ", ".join("?" * len(_COLUMNS))
            connection.executemany(f"INSERT OR REPLACE INTO fates VALUES ({marks})", map(astuple, fates))  # noqa: S608
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (hour, kind, name, bucket) DO UPDATE SET n = n + excluded.n",
                [(*count, n) for count, n in counts.items()],
            )
            self._prune(connection)
            connection.execute("COMMIT")

    def _prune(self, connection: sqlite3.Connection) -> None:
        oldest = time.time() - self._kept_days * 86_400
        connection.execute("DELETE FROM counts WHERE hour < ?", (int(oldest // 3600),))
        connection.execute("DELETE FROM fates WHERE time < ?", (oldest,))
        connection.execute(
            "DELETE FROM fates WHERE id IN (SELECT id FROM fates ORDER BY time DESC LIMIT -1 OFFSET ?)",
            (self._max_fates,),
        )

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection that cannot write; None if there are no statistics yet."""
        import sqlite3

        if not self.path.exists() or not self.path.stat().st_size:
            yield None
            return
        try:
            uri = f"{self.path.resolve().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, BUSY_TIMEOUT_S, uri=True)) as connection:
                _check_version(connection, self.path)
                yield connection
        except sqlite3.DatabaseError as error:
            raise StoreError(_explain(self.path, error)) from None


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if _check_version(connection, path) == 0:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _check_version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StoreError(f"{path} is of a newer version of Unmask: update this one")
    return version


def _fate(row: Sequence[object]) -> Fate:
    values = dict(zip(_COLUMNS, row, strict=True))
    for name in ("is_shown", "is_dismissed", "is_accepted"):
        if values[name] is not None:
            values[name] = bool(values[name])
    return Fate(**values)  # type: ignore[arg-type]


def _is_damaged(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is no database, half of one, or one with other tables."""
    import sqlite3

    signs = ("no such table", "no column", "columns but")
    return not isinstance(error, sqlite3.OperationalError) or any(sign in str(error) for sign in signs)


def _explain(path: Path, error: sqlite3.DatabaseError) -> str:
    return f"{path}: {error}. Delete the file to begin anew"
