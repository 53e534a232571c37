"""The team's engine at one or several addresses, through restarts, overload and broken connections.

A request that failed for a reason that passes is sent again, with the same id, within its deadline; an edit that broke
off begins anew, and its preview with it. An address that failed is looked at in the background until it answers.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TypeVar

from diffusion_core.config import ClientConfig
from diffusion_core.errors import Unauthorized, UnmaskError
from diffusion_core.net.attempts import Attempts
from diffusion_core.net.auth import resolve_client_token
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.site import Site, is_outage
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest

T = TypeVar("T")


def reset_frame(request: EditRequest) -> PreviewFrame:
    """The preview of an edit that begins anew: nothing is settled, and the draft is the selection."""
    return PreviewFrame(id=request.id, settled="", unsettled=request.selection)


class RemoteEngine:
    """An :class:`~diffusion_core.requests.EngineClient` of the engine at ``config.url`` and ``config.more_urls``.

    ``on_return`` is called when an address answers again. With ``may_leave`` a request is not sent again once ``lost``
    says why: somebody else will answer it. Must be used in one event loop.

    Raises:
        ConfigError: there is no token, or an address makes no sense.
    """

    def __init__(
        self, config: ClientConfig, *, may_leave: bool = False, on_return: Callable[[], None] = lambda: None
    ) -> None:
        self._max_attempts = config.max_attempts
        self._may_leave = may_leave
        self._sites = [
            Site(partial(_connect, config, url), partial(resolve_client_token, config, url), on_return)
            for url in (config.url, *config.more_urls)
        ]

    def __repr__(self) -> str:
        return f"RemoteEngine({', '.join(site.address for site in self._sites)})"

    @property
    def lost(self) -> UnmaskError | None:
        """Why no address answers, if that has been so for a while or cannot pass by itself; else None."""
        failures = [site.lost for site in self._sites]
        return None if None in failures else failures[0]

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        attempts = Attempts(request.deadline_ms, self._max_attempts)
        return await self._call(lambda client: client.complete(_in_time(request, attempts)), attempts)

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result. Leaving early (``aclose``) cancels the work on the server.

        After a stream broke off, a frame shows the selection as it was: nothing of a first answer stays in a second.
        """
        attempts = Attempts(request.deadline_ms, self._max_attempts)
        has_shown = False
        while True:
            site, began = self._choose(), time.monotonic()
            try:
                await _wait_until_open(site, attempts)
                began = time.monotonic()
                async with aclosing(_stream(site, _in_time(request, attempts), attempts)) as items:
                    async for item in items:
                        site.note_answer()
                        has_shown = True
                        yield item
                return
            except UnmaskError as error:
                await self._recover(site, error, attempts, began)
            if has_shown:
                has_shown = False
                yield reset_frame(request)

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request; tried once, since nobody waits for it."""
        await self._call(lambda client: client.warm(request), Attempts(0, 1))

    async def health(self) -> Health:
        """The state of the engine; each address is asked at most once."""
        return await self._call(lambda client: client.health(), Attempts(0, len(self._sites)), may_wait=False)

    async def aclose(self) -> None:
        """Close all connections; requests under way break off."""
        for site in self._sites:
            await site.aclose()

    async def _call(
        self, operation: Callable[[HttpEngineClient], Awaitable[T]], attempts: Attempts, *, may_wait: bool = True
    ) -> T:
        while True:
            site, began = self._choose(), time.monotonic()
            try:
                if may_wait:
                    await _wait_until_open(site, attempts)
                    began = time.monotonic()
                async with attempts.bounded(site.address):
                    answer = await operation(site.client)
            except UnmaskError as error:
                await self._recover(site, error, attempts, began)
            else:
                site.note_answer()
                return answer

    def _choose(self) -> Site:
        """The first address of those that look best."""
        return min(self._sites, key=lambda site: (site.is_failing, site.hold is not None))

    async def _recover(self, site: Site, error: UnmaskError, attempts: Attempts, began: float) -> None:
        """Return when the request is to be sent again; else raise ``error``."""
        if type(error) is Unauthorized and await site.renew_token():
            return
        site.note_failure(error, began)
        other = self._choose()
        if is_outage(error) and other is not site and not other.is_failing:
            attempts.go_elsewhere(error)
        elif self._may_leave and self.lost is not None:
            raise error
        else:
            await attempts.pause_after(error)


R = TypeVar("R", CompletionRequest, EditRequest)


def _in_time(request: R, attempts: Attempts) -> R:
    """The same request with what is left of its deadline."""
    return replace(request, deadline_ms=attempts.left_ms)


async def _wait_until_open(site: Site, attempts: Attempts) -> None:
    """Send nothing before the time that the server named; raise its refusal if that is too late."""
    while (hold := site.hold) is not None:
        await attempts.pause_after(hold)


async def _stream(site: Site, request: EditRequest, attempts: Attempts) -> AsyncGenerator[PreviewFrame | Result, None]:
    async with aclosing(site.client.edit(request)) as items:
        while True:
            async with attempts.bounded(site.address):
                item = await anext(items, None)
            if item is None:
                return
            yield item


def _connect(config: ClientConfig, url: str, token: str) -> HttpEngineClient:
    return HttpEngineClient(
        url,
        token,
        ca_file=config.ca_file,
        cert_file=config.cert_file,
        key_file=config.key_file,
        proxy=config.proxy,
        connect_timeout_s=config.connect_timeout_s,
        request_timeout_s=config.request_timeout_s,
    )
