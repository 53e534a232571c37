"""What is under way on a server: for stopping when idle, and for stopping without cutting anybody off."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from diffusion_core.errors import Closed
from diffusion_core.net.refusals import refuse

# By then a successor listens, or the balancer has noticed.
RETRY_AFTER_S = 2.0
_LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})


class Activity:
    """Requests under way, and how long there have been none. Whether the server is to stop when they have ended."""

    def __init__(self) -> None:
        self._num_active = 0
        self._idle_since = time.monotonic()
        self._is_draining = False
        self._has_ended = asyncio.Event()

    @property
    def num_active(self) -> int:
        """Requests under way."""
        return self._num_active

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended; 0 while one is under way."""
        return 0.0 if self._num_active else time.monotonic() - self._idle_since

    @property
    def is_draining(self) -> bool:
        """Whether new requests are refused because the server is about to stop."""
        return self._is_draining

    def __enter__(self) -> Activity:
        self._num_active += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._num_active -= 1
        self._idle_since = time.monotonic()
        if not self._num_active:
            self._has_ended.set()

    async def drain(self, limit_s: float) -> bool:
        """Refuse new requests and wait for those under way, at most ``limit_s`` seconds; whether all have ended."""
        self._is_draining = True
        self._has_ended.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                if self._num_active:
                    await self._has_ended.wait()
        return not self._num_active


class CountedWork:
    """ASGI middleware: counts requests that ask for work, and refuses them while the server drains.

    What only looks (GET) is neither counted, so that a watcher does not keep an idle engine alive, nor refused.
    """

    def __init__(self, app: ASGIApp, activity: Activity) -> None:
        self._app, self._activity = app, activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in _LOOKS:
            await self._app(scope, receive, send)
        elif self._activity.is_draining:
            error = Closed(
                "this engine is shutting down: ask again, its successor answers", retry_after_s=RETRY_AFTER_S
            )
            await refuse(scope, receive, send, error)
        else:
            with self._activity:
                await self._app(scope, receive, send)
