"""Keeping the shared engine alive: attach to it, watch it load, notice its death, start it again with back-off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from diffusion_core.config import ClientConfig
from diffusion_core.errors import Closed, EngineError, Unauthorized, UnmaskError, Unreachable, error_from_code
from diffusion_core.net.backoff import Backoff
from diffusion_core.net.client import was_never_sent
from diffusion_core.net.rendezvous import Found, Rendezvous
from diffusion_core.net.state_files import StateFiles
from diffusion_core.requests import Health

# Up to this long a request waits for the next attempt at a start; beyond, it is told why and when.
_MAX_WAIT_S = 2.0
_FIRST_POLL_S = 0.1
_MAX_POLL_S = 1.0
_NUM_LAST_WORDS_POLLS = 30

# ``state`` is one of starting, loading, ready, failed, restarting, unreachable; ``detail`` is for the user.
OnState = Callable[[str, str], None]


class Supervisor:
    """One client's view of the shared engine: where it is, whether it is being started, why it could not be.

    Must be used in one event loop.
    """

    def __init__(self, config: ClientConfig, files: StateFiles, command: Sequence[str], tell: OnState) -> None:
        self._files = files
        self._start_timeout_s = config.engine_start_timeout_s
        self._rendezvous = Rendezvous(config, files, command)
        self._tell = tell
        self._backoff = Backoff()
        self._found: Found | None = None
        self._attaching: asyncio.Task[Found] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._failure: UnmaskError | None = None
        self._is_closed = False

    @property
    def found(self) -> Found | None:
        """The engine as it was found last; it may have died since."""
        return self._found

    @property
    def is_loading(self) -> bool:
        """Whether the engine that was found last is being watched until its model is ready, or cannot be."""
        return self._loading is not None and not self._loading.done()

    @property
    def refusal(self) -> UnmaskError | None:
        """Why no engine is there, as long as no new attempt is due."""
        if self._failure is None or self._backoff.wait_s <= 0:
            return None
        return error_from_code(self._failure.code, str(self._failure))

    async def attach(self) -> Found:
        """The running engine; found or started if need be.

        Raises:
            UnmaskError: what kept it from starting.
        """
        if self._found is not None:
            return self._found
        # Shielded: whoever stops waiting must not stop the start for the others.
        attaching = self.begin_attaching()
        try:
            return await asyncio.shield(attaching)
        except asyncio.CancelledError:
            if self._is_closed and attaching.cancelled():
                raise Closed("this client was closed") from None
            raise

    def begin_attaching(self) -> asyncio.Task[Found]:
        """Find or start the engine in the background; all who ask share one attempt."""
        if self._is_closed:
            raise Closed("this client was closed")
        if self._attaching is None or self._attaching.done():
            self._attaching = asyncio.create_task(self._find_or_start())
            # All who waited may have left: then nobody fetches the exception, and that is no error.
            self._attaching.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._attaching

    async def give_up_or_retry(self, found: Found, error: Unreachable | Unauthorized, *, is_last_attempt: bool) -> None:
        """Return if the request never reached the engine and may be sent again; else raise what to tell the user."""
        is_first_to_notice = found is self._found
        await self.forget(found)
        if isinstance(error, Unauthorized) or was_never_sent(error):
            if is_last_attempt:
                self._tell("unreachable", str(error))
                raise error
            return
        if await self._rendezvous.is_alive(found.state):
            raise error  # it lives, but took too long, or only this connection broke
        if is_first_to_notice and not self._is_closed:
            self._note_failure(None)
            self._tell("restarting", "the engine stopped while working")
            self.begin_attaching()  # now, so that the next request finds it running
        raise Unreachable("the engine stopped while working on this request; it is being restarted") from None

    async def is_alive(self, found: Found) -> bool:
        """Whether the engine process still lives, whatever became of a connection to it."""
        return await self._rendezvous.is_alive(found.state)

    async def forget(self, found: Found) -> None:
        """Look for the engine anew with the next request; those under way on this connection go on."""
        if found is self._found:
            self._found = None
        await found.client.retire()

    async def wait_ready(self) -> None:
        """Find or start the engine; return when its model is loaded.

        Raises:
            UnmaskError: what kept it from starting or loading.
        """
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self.attach()
                while self._loading is not None:
                    loading = self._loading
                    await asyncio.wait({loading})
                    if not loading.cancelled():
                        return loading.result()
        except TimeoutError:
            raise Unreachable(
                f"the engine is not ready after {self._start_timeout_s:g} s (client.engine_start_timeout_s): "
                f"see {self._files.log}"
            ) from None

    async def stop(self) -> bool:
        """Stop the shared engine, for all its clients; whether one was running."""
        if self._found is not None:
            await self.forget(self._found)
        return await self._rendezvous.stop()

    async def aclose(self) -> None:
        """Close the connections. The engine goes on: others may use it, and it stops by itself when idle."""
        self._is_closed = True
        tasks = [task for task in (self._attaching, self._loading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._found is not None:
            await self._found.client.aclose()
            self._found = None

    async def _find_or_start(self) -> Found:
        if self._backoff.wait_s > 0:
            # An engine that somebody else got to run is welcome at any time.
            if found := await self._rendezvous.find():
                return self._adopt(found)
            await self._wait_for_turn()
        try:
            found = await self._rendezvous.find_or_start(lambda: self._tell("starting", "starting the engine"))
        except UnmaskError as error:
            self._note_failure(error)
            self._tell("failed", str(error))
            raise
        return self._adopt(found)

    async def _wait_for_turn(self) -> None:
        wait_s = self._backoff.wait_s
        if (refusal := self.refusal) is not None:
            raise refusal
        if wait_s > _MAX_WAIT_S:
            raise Unreachable(f"the engine keeps stopping: next start in {wait_s:.0f} s; see {self._files.log}")
        await asyncio.sleep(wait_s)

    def _adopt(self, found: Found) -> Found:
        self._found = found
        self._failure = None
        if self._loading is not None:
            self._loading.cancel()
        self._loading = asyncio.create_task(self._watch_loading(found))
        self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return found

    async def _watch_loading(self, found: Found) -> None:
        """Report when the model is ready, or raise what kept it from loading."""
        health = found.health
        poll_s = _FIRST_POLL_S
        try:
            if health.status == "loading":
                self._tell("loading", "the model is being loaded")
            while health.status == "loading":
                await asyncio.sleep(poll_s)
                poll_s = min(poll_s * 1.5, _MAX_POLL_S)
                health = await self._ask_again(found, health)
            if health.status == "failed":
                raise EngineError("; ".join(health.notices) or "the engine could not load its model")
        except UnmaskError as error:
            await self._fail_loading(found, error)
        else:
            self._backoff.note_healthy()
            self._tell("ready", "")

    async def _ask_again(self, found: Found, last: Health) -> Health:
        """How the engine is; the ``last`` known if it lives and is silent, as while it reads gigabytes from a disk."""
        try:
            return await found.client.health()
        except Unreachable:
            # Not for ever: who waits has a time limit, and the next client to come stops one that hangs.
            if not await self._rendezvous.is_alive(found.state):
                raise
            return last

    async def _fail_loading(self, found: Found, error: UnmaskError) -> None:
        reason = await self._read_last_words(found) or error
        if isinstance(reason, Unreachable):
            reason = Unreachable(f"the engine stopped while it was loading its model: see {self._files.stderr}")
        if found is self._found:
            await self.forget(found)
            self._note_failure(reason)
            self._tell("failed", str(reason))
        raise reason

    async def _read_last_words(self, found: Found) -> UnmaskError | None:
        # The process writes them when its server has shut down.
        for _ in range(_NUM_LAST_WORDS_POLLS):
            has_ended = not self._files.is_owned()  # looked up first: what it wrote is there when it has ended
            left = self._files.read_failure()
            if left is not None and left.pid == found.state.pid:
                return left.as_exception()
            if has_ended:
                break
            await asyncio.sleep(_FIRST_POLL_S)
        return None

    def _note_failure(self, error: UnmaskError | None) -> None:
        """Count a failure. An ``error`` is one that a next attempt will meet again; a crash (None) may not be."""
        self._failure = error
        self._backoff.note_failure(is_lasting=error is not None)
