"""The engine over HTTP: an ASGI application around any :class:`EngineClient`.

::

    POST /v1/complete   CompletionRequest -> Result
    POST /v1/edit       EditRequest       -> PreviewFrame ... Result   (a stream; an error may be its last message)
    POST /v1/watch/complete, /v1/watch/edit   their requests in JSON -> JSON lines: each forward, then the result
    GET  /v1/session    -> JSON: who asks, and what answers
    GET  /, /web/...    the page, no token
    POST /v1/warm       WarmRequest       -> WarmDone
    GET  /v1/health[?decoding&load]       -> Health, with decoding reports and the load if asked for
    GET  /v1/load[?user=NAME]  what it does and did in the last minutes, as JSON; for administrators
    GET  /metrics       for Prometheus; for administrators and the metrics token
    POST /v1/admin/reload                 -> JSON; loads the checkpoints once more, for administrators
    *    /v1/admin/...  users, tokens, limits, workspaces, audit log, for administrators (docs/admin-api.md)
    GET  /livez, /readyz    no token: the process answers; requests will be answered (see readiness)

Beside these stand the routes of ``net/openai``, for clients of OpenAI and of llama-server, and their description.

When the client leaves, the engine's work is cancelled. Logs hold request ids, statuses and times, never a body.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from diffusion_core.callers import Caller, engine_for
from diffusion_core.callers import Scope as Permission
from diffusion_core.config import ServerConfig
from diffusion_core.errors import Closed, DeadlineExceeded, EngineError, InvalidRequest, ProtocolMismatch, UnmaskError
from diffusion_core.net.activity import RETRY_AFTER_S, Activity, CountedWork
from diffusion_core.net.admin_routes import AdminRoutes
from diffusion_core.net.auth import Authenticator, KeepsAccounts, SingleToken, add_metrics_token, default_limits
from diffusion_core.net.exchange import REQUEST_ID_KEY, ClientGoneError, Exchange
from diffusion_core.net.guard import Guard
from diffusion_core.net.model_reloads import ModelReloads
from diffusion_core.net.observing.figure_routes import FigureRoutes
from diffusion_core.net.observing.observation import note_error
from diffusion_core.net.observing.observatory import Observatory
from diffusion_core.net.observing.observer import Observer
from diffusion_core.net.openai.json_exchange import JsonExchange
from diffusion_core.net.openai.paths import ALL_PATHS
from diffusion_core.net.openai.service import Service
from diffusion_core.net.origins import OriginCheck
from diffusion_core.net.pages import page_routes
from diffusion_core.net.protocol import WarmDone
from diffusion_core.net.quiet_logs import describe_exception
from diffusion_core.net.readiness import Readiness
from diffusion_core.net.watching import JsonLines, WatchRoutes
from diffusion_core.requests import CompletionRequest, EditRequest, EngineClient, Result, WarmRequest

# The engine answers a deadline with what it has; only if it is this late does the server step in.
DEADLINE_GRACE_S = 1.0

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[None]]


def create_app(
    engine: EngineClient,
    config: ServerConfig,
    access: str | Authenticator,
    activity: Activity | None = None,
    observatory: Observatory | None = None,
) -> Starlette:
    """The application. It does not own ``engine``: whoever built it starts and closes it.

    ``access`` is the only token, or what tells users by theirs. ``activity`` lets the caller see when the last request
    was, and stop the server when none is under way. Who gives an ``observatory`` (of this ``engine``) can run its watch
    beside the application.

    Raises:
        ConfigError: the metrics token cannot be used.
    """
    authenticator = add_metrics_token(config, SingleToken(access) if isinstance(access, str) else access)
    origins = OriginCheck((config.host, *config.allowed_hosts))
    activity = activity or Activity()
    observatory = observatory or Observatory(engine, config)
    # What routes ask of the engine is seen by the observatory.
    routes, watching = _Routes(observatory), WatchRoutes(observatory.engine)
    figures = FigureRoutes(observatory)
    readiness = Readiness(engine, activity, access)
    reloads = ModelReloads(engine, observatory.count_reload)
    accounts = access.accounts if isinstance(access, KeepsAccounts) else None
    administration = AdminRoutes(accounts, default_limits(config))
    posts: dict[str, Handler] = {"complete": routes.complete, "edit": routes.edit, "warm": routes.warm}
    app = Starlette(
        routes=[
            *(Route(f"/v1/{name}", _Endpoint(call, config), methods=["POST"]) for name, call in posts.items()),
            Route("/v1/health", _Endpoint(routes.health, config), methods=["GET"]),
            Route("/v1/load", _Endpoint(figures.load, config, JsonLines), methods=["GET"]),
            Route("/metrics", _Endpoint(figures.metrics, config, JsonLines), methods=["GET"]),
            Route("/v1/watch/complete", _Endpoint(watching.complete, config, JsonLines), methods=["POST"]),
            Route("/v1/watch/edit", _Endpoint(watching.edit, config, JsonLines), methods=["POST"]),
            Route("/v1/session", _Endpoint(watching.session, config, JsonLines), methods=["GET"]),
            *_routes_of_others(observatory.engine, config),
            *page_routes(),
            Route("/v1/admin/reload", reloads.answer, methods=["POST"]),
            *administration.routes(),
            Route("/livez", readiness.say_alive, methods=["GET"]),
            Route("/readyz", readiness.say_ready, methods=["GET"]),
        ],
        middleware=[
            Middleware(Observer, records=observatory),
            Middleware(Guard, authenticator=authenticator, origins=origins),
            Middleware(CountedWork, activity=activity),  # inside the guard: strangers are no activity
        ],
    )
    app.router.redirect_slashes = False  # a redirect would name the host that the client claims
    app.state.model_reloads = reloads  # whoever runs the application may let them watch
    return app


def _routes_of_others(engine: EngineClient, config: ServerConfig) -> Iterator[Route]:
    """What OpenAI's and llama-server's clients ask for."""
    service = Service(engine)
    for method, path in ALL_PATHS:
        endpoint = _Endpoint(service.handler(method, path), config, JsonExchange)
        yield Route(path.replace("{id}", "{id:name}"), endpoint, methods=[method])


class _Endpoint:
    """Runs a handler on an exchange of its ``kind`` and turns whatever it raises into an answer."""

    def __init__(
        self, handle: Callable[[Any], Awaitable[None]], config: ServerConfig, kind: type[Exchange] = Exchange
    ) -> None:
        self._handle, self._kind = handle, kind
        self._max_bytes = config.max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._kind(scope, receive, send, max_bytes=self._max_bytes)
        try:
            await self._handle(exchange)
        except ClientGoneError:
            logger.info("%s the client left; its work was cancelled", scope[REQUEST_ID_KEY])
        except UnmaskError as error:
            # What is wrong with a request is the client's to know; what is wrong here belongs in the log.
            detail = "" if isinstance(error, InvalidRequest | ProtocolMismatch) else f": {error}"
            logger.info("%s failed with %s%s", scope[REQUEST_ID_KEY], error.code, detail)
            note_error(error.code)
            await exchange.fail(error)
        except asyncio.CancelledError:
            note_error(Closed.code)
            await exchange.fail(Closed("the engine is shutting down", retry_after_s=RETRY_AFTER_S))
            raise
        except Exception as error:  # the last resort: an answer instead of a dropped connection
            logger.error("%s failed unexpectedly: %s", scope[REQUEST_ID_KEY], describe_exception(error))
            note_error(UnmaskError.code)
            await exchange.fail(
                UnmaskError(f"internal error (request {scope[REQUEST_ID_KEY]}): the server's log has more")
            )


class _Routes:
    """The four calls of :class:`EngineClient`."""

    def __init__(self, observatory: Observatory) -> None:
        self._observatory = observatory
        self._engine = observatory.engine

    async def complete(self, exchange: Exchange) -> None:
        engine = self._engine_for(exchange.caller(Permission.COMPLETE))
        request = await exchange.read(CompletionRequest)
        async with _deadline(request.deadline_ms):
            result = await exchange.race_client(engine.complete(request))
        await exchange.answer(result)

    async def edit(self, exchange: Exchange) -> None:
        engine = self._engine_for(exchange.caller(Permission.EDIT))
        request = await exchange.read(EditRequest)
        async with _deadline(request.deadline_ms):
            await exchange.race_client(_stream(engine, request, exchange))
        await exchange.end()

    async def warm(self, exchange: Exchange) -> None:
        request = await exchange.read(WarmRequest)
        engine = self._engine_for(exchange.caller(Permission.EDIT if request.edit else Permission.COMPLETE))
        await exchange.race_client(engine.warm(request))
        await exchange.answer(WarmDone())

    async def health(self, exchange: Exchange) -> None:
        health = await self._engine.health()
        # Clients that came before the reports refuse what they do not know.
        has_reports = exchange.asks_for("decoding")
        models = health.models if has_reports else tuple(replace(each, context_tokens=0) for each in health.models)
        decoding = health.decoding if has_reports else ()
        load = self._observatory.summarise_load() if exchange.asks_for("load") else None
        await exchange.answer(replace(health, models=models, decoding=decoding, load=load))

    def _engine_for(self, caller: Caller) -> EngineClient:
        return engine_for(self._engine, caller)


async def _stream(engine: EngineClient, request: EditRequest, exchange: Exchange) -> None:
    items = engine.edit(request)
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
