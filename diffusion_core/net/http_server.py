"""uvicorn, with our own ways to start, to secure and to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING

import uvicorn

from diffusion_core.config import ServerConfig
from diffusion_core.net.activity import Activity
from diffusion_core.net.certificates import Certificate
from diffusion_core.net.state_files import EngineState, StateFiles

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# What uvicorn still gives requests that have outlived the drain, to be told so; whole seconds.
_LAST_WORDS_S = 1

logger = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Serves an application, with a state file that exists exactly while requests are welcome."""

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        activity: Activity,
        *,
        certificate: Certificate | None = None,
        files: StateFiles | None = None,
        state: EngineState | None = None,
    ) -> None:
        uvicorn_config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # requests are logged by us, without query strings
            lifespan="off",
            server_header=False,
            # Whose word is taken for a client's address and scheme: by default nobody's.
            proxy_headers=bool(config.trusted_proxies),
            forwarded_allow_ips=list(config.trusted_proxies),
            timeout_keep_alive=int(config.keep_alive_s),
            timeout_graceful_shutdown=_LAST_WORDS_S if files is None else math.ceil(config.drain_s),
        )
        uvicorn_config.load()
        uvicorn_config.ssl = certificate.context if certificate is not None else None
        super().__init__(uvicorn_config)
        self._drain_s = config.drain_s
        self._activity = activity
        self._files, self._state = files, state
        self._is_stopping = False
        self._draining: asyncio.Task[None] | None = None  # held here: the loop itself holds tasks weakly

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone: uvicorn would raise them again after the shutdown, before our own clean-up."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        if self._files is not None and self._state is not None:
            self._files.write_state(self._state)
        for listener in sockets or []:
            logger.info("listening on port %d", listener.getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Withdraw the state file before the port closes: nobody should come to a closing door."""
        if self._files is not None and self._state is not None:
            self._files.remove_state(self._state.pid)
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Take no new requests, let those under way end, then shut down; asked twice, at once.

        A server for many goes on listening meanwhile, to say that it is about to stop. One with a state file closes its
        door at once: its clients then look for the next engine themselves.
        """
        if self._is_stopping:
            logger.warning("told to stop again: requests under way are cut off")
            self.force_exit = self.should_exit = True
        elif self._files is not None:
            self.should_exit = True
        else:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        self._is_stopping = True

    async def _drain(self) -> None:
        if self._activity.num_active:
            logger.info("stopping: %d requests may end within %g s", self._activity.num_active, self._drain_s)
        if not await self._activity.drain(self._drain_s):
            logger.warning("stopping: %d requests did not end in time", self._activity.num_active)
        self.should_exit = True
