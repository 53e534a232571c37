"""The engine over HTTP: an ASGI application around any :class:`EngineClient`.

::

    POST /v1/complete   CompletionRequest -> Result
    POST /v1/edit       EditRequest       -> PreviewFrame ... Result   (a stream; an error may be its last message)
    POST /v1/warm       WarmRequest       -> WarmDone
    GET  /v1/health[?decoding]            -> Health, with decoding reports if asked for
    GET  /livez         no token, says nothing but that the process answers

When the client leaves, the engine's work is cancelled. Logs hold request ids, statuses and times, never a body.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from diffusion_core.config import ServerConfig
from diffusion_core.errors import Closed, DeadlineExceeded, EngineError, InvalidRequest, ProtocolMismatch, UnmaskError
from diffusion_core.net.exchange import REQUEST_ID_KEY, ClientGoneError, Exchange
from diffusion_core.net.guard import Guard
from diffusion_core.net.protocol import WarmDone
from diffusion_core.net.quiet_logs import describe_exception
from diffusion_core.requests import CompletionRequest, EditRequest, EngineClient, Result, WarmRequest

# The engine answers a deadline with what it has; only if it is this late does the server step in.
DEADLINE_GRACE_S = 1.0

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[None]]


class Activity:
    """How long the engine has had nothing to do. Health checks are not activity: a watcher must not keep it alive."""

    def __init__(self) -> None:
        self._num_active = 0
        self._idle_since = time.monotonic()

    @property
    def idle_s(self) -> float:
        """Seconds since the last request ended; 0 while one is under way."""
        return 0.0 if self._num_active else time.monotonic() - self._idle_since

    def __enter__(self) -> Activity:
        self._num_active += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._num_active -= 1
        self._idle_since = time.monotonic()


def create_app(engine: EngineClient, config: ServerConfig, token: str, activity: Activity | None = None) -> Starlette:
    """The application. It does not own ``engine``: whoever built it starts and closes it.

    ``activity`` lets the caller see when the last request was.
    """
    routes = _Routes(engine, activity or Activity())
    posts: dict[str, Handler] = {"complete": routes.complete, "edit": routes.edit, "warm": routes.warm}
    return Starlette(
        routes=[
            *(Route(f"/v1/{name}", _Endpoint(call, config), methods=["POST"]) for name, call in posts.items()),
            Route("/v1/health", _Endpoint(routes.health, config), methods=["GET"]),
            Route("/livez", _say_alive, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, token=token)],
    )


async def _say_alive(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


class _Endpoint:
    """Runs a handler and turns whatever it raises into an answer."""

    def __init__(self, handle: Handler, config: ServerConfig) -> None:
        self._handle = handle
        self._max_bytes = config.max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, max_bytes=self._max_bytes)
        try:
            await self._handle(exchange)
        except ClientGoneError:
            logger.info("%s the client left; its work was cancelled", scope[REQUEST_ID_KEY])
        except UnmaskError as error:
            # What is wrong with a request is the client's to know; what is wrong here belongs in the log.
            detail = "" if isinstance(error, InvalidRequest | ProtocolMismatch) else f": {error}"
            logger.info("%s failed with %s%s", scope[REQUEST_ID_KEY], error.code, detail)
            await exchange.fail(error)
        except asyncio.CancelledError:
            await exchange.fail(Closed("the engine is shutting down"))
            raise
        except Exception as error:  # the last resort: an answer instead of a dropped connection
            logger.error("%s failed unexpectedly: %s", scope[REQUEST_ID_KEY], describe_exception(error))
            await exchange.fail(
                UnmaskError(f"internal error (request {scope[REQUEST_ID_KEY]}): the server's log has more")
            )


class _Routes:
    """The four calls of :class:`EngineClient`."""

    def __init__(self, engine: EngineClient, activity: Activity) -> None:
        self._engine = engine
        self._activity = activity

    async def complete(self, exchange: Exchange) -> None:
        with self._activity:
            request = await exchange.read(CompletionRequest)
            async with _deadline(request.deadline_ms):
                result = await exchange.race_client(self._engine.complete(request))
            await exchange.answer(result)

    async def edit(self, exchange: Exchange) -> None:
        with self._activity:
            request = await exchange.read(EditRequest)
            async with _deadline(request.deadline_ms):
                await exchange.race_client(self._stream(request, exchange))
            await exchange.end()

    async def warm(self, exchange: Exchange) -> None:
        with self._activity:
            request = await exchange.read(WarmRequest)
            await exchange.race_client(self._engine.warm(request))
            await exchange.answer(WarmDone())

    async def health(self, exchange: Exchange) -> None:
        health = await self._engine.health()
        # Clients that came before the reports refuse what they do not know.
        await exchange.answer(health if exchange.asks_for("decoding") else replace(health, decoding=()))

    async def _stream(self, request: EditRequest, exchange: Exchange) -> None:
        items = self._engine.edit(request)
        try:
            async for item in items:
                await exchange.send_part(item)
                if isinstance(item, Result):
                    return
        finally:
            # Also when cancelled or when sending fails: the generator's own clean-up stops the engine's work.
            if isinstance(items, AsyncGenerator):
                await items.aclose()
        raise EngineError("the engine ended the edit without a result")


@asynccontextmanager
async def _deadline(deadline_ms: int) -> AsyncIterator[None]:
    limit_s = deadline_ms / 1000 + DEADLINE_GRACE_S if deadline_ms else None
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"nothing was ready after {deadline_ms} ms") from None
