"""What runs for edits: at most one edit of a document at a time, and at most one warm-up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from diffusion_core.errors import InvalidRequest, UnmaskError
from diffusion_core.requests import EditRequest, EngineClient, WarmRequest
from lsp_server.edit_messages import EditCommand

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Run:
    task: asyncio.Task[object] | None
    is_shown: bool


class EditRuns:
    """The edits under way. One that nobody asked for (``is_shown`` false) makes way for one that somebody does."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    async def make_way(self, command: EditCommand) -> None:
        """Wait until the document is free for a command.

        Raises:
            InvalidRequest: an edit that somebody asked for is being made.
        """
        while (other := self._runs.get(command.uri)) is not None:
            if other.is_shown or not command.is_shown or other.task is None:
                raise InvalidRequest("an edit of this document is being made already: wait for it or cancel it")
            other.task.cancel()
            await asyncio.gather(other.task, return_exceptions=True)

    @contextlib.contextmanager
    def running(self, command: EditCommand) -> Iterator[None]:
        """While the present task makes an edit."""
        self._runs[command.uri] = _Run(asyncio.current_task(), command.is_shown)
        try:
            yield
        finally:
            del self._runs[command.uri]


class EditWarmUp:
    """The engine reading the prompt of an edit to come."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self, client: EngineClient, request: EditRequest) -> None:
        """Begin to read; the newest warm-up replaces an older one."""
        self.stop()
        self._task = asyncio.create_task(_warm(client, request))

    def stop(self) -> None:
        """What was expected is here, or will not come. The engine keeps what it has computed."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


async def _warm(client: EngineClient, request: EditRequest) -> None:
    try:
        await client.warm(WarmRequest(edit=request))
    except UnmaskError as error:
        logger.info("warm-up %s: %s", request.id, type(error).__name__)
