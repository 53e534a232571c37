"""One address of a remote engine: the connection to it, whether it answers, and the watch for its return."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from diffusion_core.errors import Closed, Forbidden, TransportError, Unauthorized, UnmaskError, error_from_code
from diffusion_core.net.client import HttpEngineClient

# A restart of the server is over by then, as a rule; what lasts longer is an outage.
LOST_AFTER_S = 2.0
_FIRST_PROBE_S = 0.25
_MAX_PROBE_S = 30.0
_MAX_HOLD_S = 60.0

logger = logging.getLogger(__name__)


def is_outage(error: UnmaskError) -> bool:
    """Whether an error is about the way to the engine, not about the request or its user."""
    return isinstance(error, TransportError | Closed) and not isinstance(error, Forbidden)


class Site:
    """The engine at one address. ``read_token`` gives the token as it is now stored; it may block."""

    def __init__(
        self,
        connect: Callable[[str], HttpEngineClient],
        read_token: Callable[[], str],
        on_return: Callable[[], None],
    ) -> None:
        self._connect, self._read_token, self._on_return = connect, read_token, on_return
        self.client = connect(read_token())
        self._failure: UnmaskError | None = None
        self._failing_since = 0.0
        self._hold: UnmaskError | None = None
        self._held_until = 0.0
        self._probing: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def address(self) -> str:
        """Its URL."""
        return self.client.address

    @property
    def is_failing(self) -> bool:
        """Whether the last that was heard of it is an outage."""
        return self._failure is not None

    @property
    def lost(self) -> UnmaskError | None:
        """Why it does not answer, once that has lasted for a while or cannot pass by itself."""
        failure = self._failure
        if failure is None or (failure.retryable and time.monotonic() - self._failing_since < LOST_AFTER_S):
            return None
        return failure

    @property
    def hold(self) -> UnmaskError | None:
        """The refusal whose ``Retry-After`` has not passed yet; the seconds in it are those left."""
        left_s = self._held_until - time.monotonic()
        if self._hold is None or left_s <= 0:
            return None
        error = error_from_code(self._hold.code, str(self._hold))
        error.retry_after_s = left_s
        return error

    def note_answer(self) -> None:
        """It answered."""
        self._hold = None
        if self._failure is None:
            return
        self._failure = None
        logger.info("%s answers again", self.address)
        if self._probing is not None and self._probing is not asyncio.current_task():
            self._probing.cancel()
        self._probing = None
        self._on_return()

    def note_failure(self, error: UnmaskError, began: float) -> None:
        """A request that began at ``began`` (monotonic clock) failed."""
        if error.retry_after_s > 0:
            self._hold, self._held_until = error, time.monotonic() + min(error.retry_after_s, _MAX_HOLD_S)
        if not is_outage(error) or self._is_closed:
            return
        if self._failure is None:
            self._failing_since = began
        self._failure = error
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe())

    async def renew_token(self) -> bool:
        """Look whether another token is stored by now; if so, it is used from now on, and the result is true."""
        try:
            token = await asyncio.to_thread(self._read_token)
        except UnmaskError:
            return False
        if self.client.has_token(token) or self._is_closed:
            return False
        old, self.client = self.client, self._connect(token)
        await old.retire()
        return True

    async def aclose(self) -> None:
        """Stop watching and close the connections."""
        self._is_closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self.client.aclose()

    async def _probe(self) -> None:
        """Ask until it answers, less and less often."""
        pause_s = _FIRST_PROBE_S
        while True:
            await asyncio.sleep(pause_s * (1 + random.random() / 2))  # noqa: S311 - spreads clients, hides nothing
            pause_s = min(2 * pause_s, _MAX_PROBE_S)
            try:
                await self.client.health()
            except UnmaskError as error:
                self._failure = error if is_outage(error) else self._failure
                if type(error) is Unauthorized and await self.renew_token():
                    pause_s = _FIRST_PROBE_S
            else:
                self.note_answer()
                return
