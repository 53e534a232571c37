"""The team's engine, and the local one while the other does not answer; used only where the user allows it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from diffusion_core.config import ClientConfig
from diffusion_core.errors import UnmaskError, error_from_code
from diffusion_core.net.remote import RemoteEngine, reset_frame
from diffusion_core.net.supervisor import OnState
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    EngineClient,
    Health,
    PreviewFrame,
    Result,
    WarmRequest,
)

if TYPE_CHECKING:
    from diffusion_core.net.launcher import LocalEngine

T = TypeVar("T")

logger = logging.getLogger(__name__)


class FailoverEngine:
    """An :class:`~diffusion_core.requests.EngineClient`: the remote engine of ``config``, else the local one.

    The local engine is started when the remote one has not answered for a while, and left when it answers again. Being
    too busy is no reason: a refusal for load or for the user's own limit is passed on. ``on_state`` hears ``local``
    with the reason when answers begin to come from here, and ``remote`` when they come from there again, besides what
    it hears about the local engine.
    """

    def __init__(
        self, config: ClientConfig, make_local: Callable[[OnState], LocalEngine], *, on_state: OnState
    ) -> None:
        self._make_local = make_local
        self._tell = on_state
        self._remote = RemoteEngine(config, may_leave=True, on_return=self._note_return)
        self._local: LocalEngine | None = None
        self._is_detour = False

    def __repr__(self) -> str:
        return f"FailoverEngine({self._remote!r})"

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        return await self._call(lambda engine: engine.complete(request))

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result; changing the engine begins the preview anew."""
        has_shown = False
        if self._remote.lost is None:
            try:
                async with aclosing(self._remote.edit(request)) as items:
                    async for item in items:
                        has_shown = True
                        yield item
                return
            except UnmaskError:
                if self._remote.lost is None:
                    raise
        if has_shown:
            yield reset_frame(request)
        try:
            async with aclosing(self._take_detour().edit(request)) as items:
                async for item in items:
                    yield item
        except UnmaskError as error:
            raise self._explain(error) from None

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request."""
        await self._call(lambda engine: engine.warm(request))

    async def health(self) -> Health:
        """The state of the engine that answers now."""
        health = await self._call(lambda engine: engine.health())
        return replace(health, notices=(self._detour, *health.notices)) if self._is_detour else health

    async def stop_local(self) -> bool:
        """Stop the local engine, for all its clients; whether one was running."""
        return self._local is not None and await self._local.stop()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._remote.aclose()
        if self._local is not None:
            await self._local.aclose()

    async def _call(self, operation: Callable[[EngineClient], Awaitable[T]]) -> T:
        if self._remote.lost is None:
            try:
                return await operation(self._remote)
            except UnmaskError:
                if self._remote.lost is None:
                    raise
        try:
            return await operation(self._take_detour())
        except UnmaskError as error:
            raise self._explain(error) from None

    @property
    def _detour(self) -> str:
        return f"Answering locally because {self._remote.lost or 'the remote engine did not answer'}."

    def _take_detour(self) -> LocalEngine:
        if self._local is None:
            self._local = self._make_local(self._tell_of_local)
        if not self._is_detour:
            self._is_detour = True
            logger.info("%r does not answer: requests go to the local engine", self._remote)
            self._tell("local", self._detour)
        return self._local

    def _note_return(self) -> None:
        if self._is_detour:
            self._is_detour = False
            self._tell("remote", "")

    def _tell_of_local(self, state: str, detail: str) -> None:
        if self._is_detour:
            self._tell(state, detail)

    def _explain(self, error: UnmaskError) -> UnmaskError:
        """What the local engine says, with the reason why it was asked."""
        reason = self._remote.lost
        explained = error_from_code(error.code, f"{error} (asked because {reason})" if reason else str(error))
        explained.retry_after_s = error.retry_after_s
        return explained
