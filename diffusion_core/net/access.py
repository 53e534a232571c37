"""Who may use a server: whoever has its one token, or the users of a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from diffusion_core.accounts.directory import Directory
from diffusion_core.accounts.open import open_accounts
from diffusion_core.accounts.store import Accounts
from diffusion_core.callers import Caller
from diffusion_core.config import ServerConfig
from diffusion_core.errors import AccountsUnavailable, ConfigError
from diffusion_core.net.auth import default_limits, parse_bearer


class DatabaseAuthenticator:
    """Tells users apart by the tokens of a database."""

    def __init__(self, accounts: Accounts, directory: Directory) -> None:
        self.accounts = accounts
        self.directory = directory

    async def identify(self, authorization: str) -> Caller:
        """The user whose token the header carries.

        Raises:
            Unauthorized: nobody's.
            AccountsUnavailable: the database has been out of reach for too long.
        """
        return self.directory.find(parse_bearer(authorization))

    async def why_not_ready(self) -> str:
        """``database`` when it has been out of reach for so long that nobody is let in any more."""
        return "" if self.directory.is_current else "database"


@contextmanager
def open_access(config: ServerConfig) -> Iterator[DatabaseAuthenticator]:
    """The users of ``config.database_url``, brought up to date and followed until the end.

    Raises:
        ConfigError: the database cannot be used.
    """
    accounts = open_accounts(config.database_url, may_upgrade=True)
    directory = Directory(accounts, default_limits(config))
    with closing(accounts):
        try:
            directory.start()
        except AccountsUnavailable as error:
            raise ConfigError(f"server.database_url: {accounts.describe()}: {error}") from None
        try:
            yield DatabaseAuthenticator(accounts, directory)
        finally:
            directory.close()


def describe_access(access: DatabaseAuthenticator) -> list[str]:
    """What a person should know about the users when the server starts."""
    lines = [f"users: {access.accounts.describe()}"]
    if not access.directory.has_administrator:
        lines.append(
            "nobody has an administrator's token yet: `unmask user add NAME`, then "
            "`unmask token create NAME --scope complete,edit,admin`"
        )
    return lines
