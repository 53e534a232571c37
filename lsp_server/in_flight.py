"""The one completion that the engine works on.

VS Code cancels and asks anew at every key, even while the user types what is about to be suggested. So cancelling an
LSP request only detaches its waiter. The engine's work goes on while a newer request may still use its answer (the
same text with a few more characters typed) and is cancelled

- at once, when a newer request cannot use it (newest wins);
- after a short grace, when nobody came to join it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from diffusion_core.requests import Result
from lsp_server.suggestions import Query, typed_since

GRACE_S = 0.1  # an editor's next request comes within a few milliseconds of its cancel
MAX_JOIN_TYPED = 24


class Superseded(Exception):
    """A newer request took the engine; the older one is answered with nothing."""


@dataclass(eq=False)
class EngineRun:
    """A request the engine works on, and how many wait for its answer."""

    query: Query
    task: asyncio.Task[Result]
    num_asked: int = 1
    num_waiters: int = 0
    grace: asyncio.TimerHandle | None = field(default=None, repr=False)


class InFlight:
    """Newest wins, with joining. Everything happens on the event loop."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self._run: EngineRun | None = None
        self._turn = 0

    def take_turn(self) -> int:
        """The number of a request that just arrived; only the newest may start work."""
        self._turn += 1
        return self._turn

    def check_turn(self, turn: int) -> None:
        """Raises Superseded when a newer request arrived."""
        if turn != self._turn:
            raise Superseded

    @property
    def is_idle(self) -> bool:
        """Whether the engine works on none of our completions."""
        return self._run is None or self._run.task.done()

    def joinable(self, query: Query, num_wanted: int = 1) -> EngineRun | None:
        """The present run if its answer may still fit the query, and has as many texts as are wanted."""
        run = self._run
        if run is None or run.task.done() or run.task.cancelling() or run.num_asked < num_wanted:
            return None
        if typed_since(run.query, query, MAX_JOIN_TYPED) is None:
            return None
        return run

    def start(self, query: Query, work: Callable[[], Awaitable[Result]], num_asked: int = 1) -> EngineRun:
        """Begin new work, on ``num_asked`` texts; the older one is cancelled."""
        self.cancel()

        async def run_work() -> Result:
            return await work()

        run = EngineRun(query, asyncio.create_task(run_work()), num_asked)
        run.task.add_done_callback(_retrieve)
        self._run = run
        return run

    async def wait(self, run: EngineRun) -> Result:
        """The answer of a run.

        Raises:
            Superseded: the run was cancelled in favour of a newer request.
            UnmaskError: as the engine raised it.
            asyncio.CancelledError: the waiter itself was cancelled; the run may go on.
        """
        if run.grace is not None:
            run.grace.cancel()
            run.grace = None
        run.num_waiters += 1
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            waiter = asyncio.current_task()
            if run.task.cancelled() and waiter is not None and not waiter.cancelling():
                raise Superseded from None
            raise
        finally:
            run.num_waiters -= 1
            if run.num_waiters == 0 and not run.task.done():
                run.grace = asyncio.get_running_loop().call_later(self._grace_s, _cancel_if_alone, run)

    def cancel(self) -> None:
        """Stop the present work, whoever waits for it."""
        if self._run is not None:
            self._run.task.cancel()
            if self._run.grace is not None:
                self._run.grace.cancel()
            self._run = None


def _cancel_if_alone(run: EngineRun) -> None:
    if run.num_waiters == 0:
        run.task.cancel()


def _retrieve(task: asyncio.Task[Result]) -> None:
    """Look at the outcome of work that nobody waits for any more, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()
