"""What stands before every route: no browsers, a token, and one log line a request."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion_core.errors import Unauthorized
from diffusion_core.net.auth import is_authorized
from diffusion_core.net.exchange import REQUEST_ID_KEY, Exchange
from diffusion_core.requests import new_request_id

_OPEN_PATHS = frozenset({"/livez"})
_QUIET_PATHS = frozenset({"/livez", "/v1/health"})
_FORBIDDEN = 403

logger = logging.getLogger(__name__)


class Guard:
    """ASGI middleware: refuses browsers and strangers, logs method, route, status and milliseconds."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope[REQUEST_ID_KEY] = new_request_id()
        try:
            await self._admit(scope, receive, send_and_note)
        finally:
            # A path is the client's text until a route has matched it.
            path = scope["path"] if "endpoint" in scope else "(no such path)"
            # Status 0: the client left before an answer.
            logger.log(
                logging.DEBUG if path in _QUIET_PATHS else logging.INFO,
                "%s %s %s %d in %.0f ms",
                scope[REQUEST_ID_KEY],
                scope["method"] if "endpoint" in scope else "-",
                path,
                status,
                (time.monotonic() - began) * 1000,
            )

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if "origin" in headers:
            # Editors and scripts send no Origin; a web page cannot leave it out. This also stops DNS rebinding.
            await _refuse(scope, receive, send, "requests from web pages are not allowed", _FORBIDDEN)
        elif scope["path"] not in _OPEN_PATHS and not is_authorized(headers.get("authorization", ""), self._token):
            await _refuse(scope, receive, send, "the bearer token is missing or wrong", Unauthorized.http_status)
        else:
            await self._app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send, message: str, status: int) -> None:
    exchange = Exchange(scope, receive, send, max_bytes=0)
    await exchange.fail(Unauthorized(message), status)
