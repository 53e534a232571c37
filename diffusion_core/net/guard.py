"""What stands before every route: no pages of other sites, a token, and the limits of its user."""

from __future__ import annotations

from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from diffusion_core.accounts.quotas import Kind, Quotas
from diffusion_core.callers import Caller
from diffusion_core.callers import Scope as Permission
from diffusion_core.errors import Forbidden, UnmaskError
from diffusion_core.net.auth import Authenticator
from diffusion_core.net.exchange import CALLER_KEY
from diffusion_core.net.origins import OriginCheck
from diffusion_core.net.pages import PAGE_PATHS
from diffusion_core.net.refusals import refuse

_METRICS_PATH = "/metrics"
_OPEN_PATHS = frozenset({"/livez", "/readyz", *PAGE_PATHS})


class Guard:
    """ASGI middleware: refuses other sites' pages, strangers and who asks too much."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, origins: OriginCheck) -> None:
        self._app = app
        self._authenticator = authenticator
        self._origins = origins
        self._quotas = Quotas()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # there are none, so nobody comes past this way
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._admit(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as held:
            try:
                self._origins.check(scope)
                if scope["path"] not in _OPEN_PATHS:
                    caller = await self._authenticator.identify(_authorization(scope))
                    scope[CALLER_KEY] = caller
                    _check_path(caller, scope["path"])
                    # The place is free again when the request has ended, also because its client left.
                    held.enter_context(self._quotas.admit(caller, _kind_of(scope)))
            except UnmaskError as error:
                await refuse(scope, receive, send, error)
                return
            await self._app(scope, receive, send)


def _authorization(scope: Scope) -> str:
    """The header that names the caller. Of two, one may be what a proxy checked and the other what it did not."""
    given = Headers(scope=scope).getlist("authorization")
    return given[0] if len(given) == 1 else ""


def _check_path(caller: Caller, path: str) -> None:
    """Keep a monitoring system to the metrics: routes that want no scope would be open to it as well.

    Raises:
        Forbidden: it asks for something else.
    """
    if caller.scopes == {Permission.METRICS} and path != _METRICS_PATH:
        raise Forbidden(f"this token opens {_METRICS_PATH} and nothing else: ask for one with another scope")


def _kind_of(scope: Scope) -> Kind:
    """What a request costs: all that asks the engine is posted."""
    if scope["method"] != "POST" or scope["path"].startswith("/v1/admin/"):
        return Kind.FREE
    return Kind.WARM_UP if scope["path"] == "/v1/warm" else Kind.REQUEST
