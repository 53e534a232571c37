"""Who has which token, in memory: asking costs no database access and takes the same time whatever the token.

A thread follows the database, so that what another process changes (the command line, another server) holds here
within :data:`POLL_S`. What this process changes holds at once.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from diffusion_core.accounts.convert import Grant
from diffusion_core.accounts.records import now
from diffusion_core.accounts.store import Accounts
from diffusion_core.accounts.tokens import digest_of
from diffusion_core.callers import Caller, Limits, Scope
from diffusion_core.errors import AccountsUnavailable, Unauthorized, UnmaskError

POLL_S = 0.25
# Without the database nobody can be revoked: for so long those who are known go on, then nobody does.
GRACE_S = 60.0
_WRITE_USES_S = 10.0
# One sentence for every reason: whoever tries tokens learns nothing from it.
REFUSAL = "the bearer token is missing or wrong"
_NO_DIGEST = bytes(32)

logger = logging.getLogger(__name__)


class Directory:
    """The accounts that a server asks at every request. Threads may share it."""

    def __init__(
        self,
        accounts: Accounts,
        defaults: Limits,
        *,
        poll_s: float = POLL_S,
        grace_s: float = GRACE_S,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._accounts, self._defaults = accounts, defaults
        self._poll_s, self._grace_s, self._clock = poll_s, grace_s, clock
        self._grants: Mapping[bytes, Grant] = {}
        self._number = -1
        self._fresh_at = 0.0
        self._loading = threading.Lock()
        self._uses: dict[int, datetime] = {}
        self._uses_lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="accounts", daemon=True)

    def start(self) -> None:
        """Load the accounts and begin to follow them.

        Raises:
            AccountsUnavailable: the database cannot be reached.
        """
        self.refresh()
        self._accounts.on_change = self._note_change
        self._thread.start()

    def close(self) -> None:
        """Stop following, and write down the last uses."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_current(self) -> bool:
        """Whether the database was reached lately; if not, :meth:`find` refuses everybody."""
        return time.monotonic() - self._fresh_at <= self._grace_s

    @property
    def has_administrator(self) -> bool:
        """Whether anybody has a token of the scope admin that can be used."""
        at = self._clock()
        return any(
            Scope.ADMIN in grant.caller.scopes and (grant.expires_at is None or at < grant.expires_at)
            for grant in self._grants.values()
        )

    def find(self, token: str) -> Caller:
        """Who has ``token``.

        Raises:
            Unauthorized: nobody: it is unknown, expired, revoked, or of a disabled user; the message does not say.
            AccountsUnavailable: the database has been out of reach for too long to be sure.
        """
        digest = digest_of(token)
        grant = self._grants.get(digest)
        at = self._clock()
        is_right = hmac.compare_digest(digest, grant.digest if grant else _NO_DIGEST)
        if not self.is_current:
            raise AccountsUnavailable("the database of users and tokens cannot be reached: try again shortly")
        if grant is None or not is_right or (grant.expires_at is not None and at >= grant.expires_at):
            raise Unauthorized(REFUSAL)
        with self._uses_lock:
            self._uses[grant.token_id] = at
        return grant.caller

    def refresh(self) -> None:
        """Load what there is now.

        Raises:
            AccountsUnavailable: the database cannot be reached; what was known stays.
        """
        with self._loading:
            self._load()

    def _note_change(self) -> None:
        try:
            self.refresh()
        except UnmaskError:
            logger.warning("a change of users or tokens holds as soon as the database is back")

    def _load(self) -> None:
        began = time.monotonic()
        number, grants = self._accounts.grants(self._defaults)
        self._grants = {grant.digest: grant for grant in grants}
        self._number, self._fresh_at = number, began

    def _look(self) -> None:
        with self._loading:
            began = time.monotonic()
            if self._accounts.change_number() != self._number:
                self._load()
            self._fresh_at = began

    def _follow(self) -> None:
        is_reached = True
        last_written = time.monotonic()
        while not self._closing.wait(self._poll_s):
            try:
                self._look()
                if time.monotonic() - last_written >= _WRITE_USES_S:
                    last_written = time.monotonic()
                    self._write_uses()
            except UnmaskError as error:
                if is_reached:
                    logger.error("%s; known users go on for %.0f s", error, self._grace_s)
                is_reached = False
            else:
                if not is_reached:
                    logger.info("the database of users and tokens is back")
                is_reached = True
        try:
            self._write_uses()
        except UnmaskError:
            logger.warning("when tokens were last used could not be written down")

    def _write_uses(self) -> None:
        with self._uses_lock:
            uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            self._accounts.note_uses(uses)
        except UnmaskError:
            with self._uses_lock:
                self._uses = uses | self._uses
            raise
