"""Opening the accounts: for a server, which brings the database up to date, and for the command line."""

from __future__ import annotations

from diffusion_core.accounts.database import Database
from diffusion_core.accounts.migrate import check_revision, upgrade
from diffusion_core.accounts.store import Accounts


def open_accounts(url: str, *, may_upgrade: bool = False) -> Accounts:
    """The accounts in the database at ``url`` (empty: the default file); an empty database is set up.

    Raises:
        ConfigError: it cannot be used; or it is of another version and may not be upgraded here.
    """
    database = Database(url)
    try:
        if may_upgrade:
            upgrade(database)
        else:
            check_revision(database)
    except BaseException:
        database.close()
        raise
    return Accounts(database)
