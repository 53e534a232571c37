"""Every older database becomes the present one, on SQLite and PostgreSQL, with what was in it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from helpers.unmask_process import FORKS
from sqlalchemy import text

from diffusion_core.accounts.database import Database
from diffusion_core.accounts.migrate import all_revisions, check_revision, current_revision, newest_revision, upgrade
from diffusion_core.accounts.open import open_accounts
from diffusion_core.accounts.store import Accounts
from diffusion_core.accounts.tables import Base
from diffusion_core.callers import Limits
from diffusion_core.errors import ConfigError

# What each revision can hold, in its own words; later ones keep it.
USER = "INSERT INTO users (name, created_at) VALUES ('alice', '2026-01-02 03:04:05')"
TOKEN = (
    "INSERT INTO tokens (user_id, name, beginning, digest, scopes, created_at) "
    "VALUES (1, 'laptop', 'unmask_abcdef', :digest, 'complete edit', '2026-01-02 03:04:05')"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"sqlite:///{tmp_path / 'server.db'}" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.mark.parametrize("revision", all_revisions())
def test_every_revision_is_upgraded_with_its_data_to_the_tables_of_the_code(url: str, revision: str) -> None:
    database = Database(url)
    assert upgrade(database, revision) == ("", revision)
    with database.connecting() as connection:
        connection.execute(text(USER))
        connection.execute(text(TOKEN), {"digest": bytes(range(32))})
    upgrade(database)
    with database.connecting() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    accounts = Accounts(database)
    [token] = accounts.tokens("alice")
    assert (token.name, token.created_at) == ("laptop", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert [grant.caller.space for grant in accounts.grants(Limits())[1]] == ["user-1"]
    accounts.remove_user("alice", actor="test")
    assert accounts.add_user("alice", actor="test").id == 2  # a removed user's number is not given again
    assert upgrade(database) == (newest_revision(), newest_revision())
    database.close()


def _upgrade(url: str) -> None:
    with closing(Database(url)) as database:
        upgrade(database)


def test_servers_that_start_together_upgrade_once(url: str) -> None:
    processes = [FORKS.Process(target=_upgrade, args=(url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    with closing(Database(url)) as database:
        assert current_revision(database) == newest_revision()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'server.db'}")) as database:
        upgrade(database)
        with database.connecting() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        for use in (upgrade, check_revision):
            with pytest.raises(ConfigError, match="revision 9999, which this Unmask does not know"):
                use(database)


def test_a_command_does_not_upgrade_under_a_running_server(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'server.db'}"
    with closing(Database(url)) as database:
        upgrade(database, "0001")
    with pytest.raises(ConfigError, match="run `unmask database upgrade`"):
        open_accounts(url)
    open_accounts(url, may_upgrade=True).close()
    open_accounts(url).close()


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "server.db"
    accounts = open_accounts(f"sqlite:///{path}")
    accounts.add_user("alice", actor="test")
    files = sorted(path.parent.iterdir())
    assert {file.name for file in files} >= {"server.db", "server.db-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    accounts.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "no address of a database"),
        ("mysql://user:s3cret@host/db", "of kind 'mysql'"),
        ("sqlite://", "names no file"),
        ("postgresql://user:s3cret@host:notaport/db", "no address of a database"),
        ("sqlite:////proc/nowhere/server.db", "cannot use /proc/nowhere"),
        ("postgresql://user:s3cret@127.0.0.1:1/db", r"postgresql://user:\*\*\*@127.0.0.1:1/db cannot be used"),
    ],
)
def test_a_wrong_address_is_explained_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        open_accounts(url)
    assert "s3cret" not in str(caught.value)


def test_what_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    path.write_bytes(b"this is no database\n" * 100)
    with pytest.raises(ConfigError, match="file is not a database"):
        open_accounts(f"sqlite:///{path}")
