"""The outermost part of the application: watches every request from its first byte to its end."""

from __future__ import annotations

from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion_core.net.exchange import CALLER_KEY, REQUEST_ID_KEY
from diffusion_core.net.observing.observation import CURRENT, Observation
from diffusion_core.net.observing.request_ids import REQUEST_ID_HEADER, valid_request_id, valid_traceparent
from diffusion_core.requests import new_request_id

# OpenTelemetry's semantic conventions: these by name, everything else, which may be any text at all, as ``_OTHER``.
KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OTHER_METHOD = "_OTHER"


class Records(Protocol):
    """What is told of every request that ended."""

    def record(self, observation: Observation) -> None:
        """Take note; must not block and must not raise."""
        ...


class Observer:
    """ASGI middleware: makes the request's :class:`Observation`, answers its id, and hands it on at the end."""

    def __init__(self, app: ASGIApp, records: Records) -> None:
        self._app = app
        self._records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sent_id = valid_request_id(headers.get("x-request-id", ""))
        observation = Observation(
            request_id=sent_id or new_request_id(),
            traceparent=valid_traceparent(headers.get("traceparent", "")),
        )
        scope[REQUEST_ID_KEY] = observation.request_id

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                observation.status = message["status"]
                answered = MutableHeaders(scope=message)
                answered[REQUEST_ID_HEADER.decode()] = scope[REQUEST_ID_KEY]
            await send(message)

        token = CURRENT.set(observation)
        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            observation.code = observation.code or "internal"
            raise
        finally:
            self._finish(observation, scope, sent_id)
            CURRENT.reset(token)

    def _finish(self, observation: Observation, scope: Scope, sent_id: str) -> None:
        observation.request_id = scope[REQUEST_ID_KEY]
        observation.proxy_id = sent_id if sent_id != observation.request_id else ""
        observation.route = name_route(scope)
        # A method is the client's text, also where a route matched the path only and answers 405.
        method: str = scope["method"]
        observation.method = method if method in KNOWN_METHODS else OTHER_METHOD
        if caller := scope.get(CALLER_KEY):
            observation.user = caller.user
        observation.end()
        self._records.record(observation)


def name_route(scope: Scope) -> str:
    """The route that matched, as the application declares it: paths are the client's text. Empty if none did."""
    route = scope.get("route")
    if route is None:
        return ""
    path: str = getattr(route, "path", "")
    if isinstance(route, Mount):
        return f"{path}/..."
    # Below a mount the route knows the rest of the path only.
    return str(scope.get("root_path", "")).removeprefix(str(scope.get("app_root_path", ""))) + path
