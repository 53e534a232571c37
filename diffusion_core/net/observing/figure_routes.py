"""``GET /metrics`` and ``GET /v1/load``."""

from __future__ import annotations

import json

from diffusion_core.callers import Scope
from diffusion_core.errors import Forbidden
from diffusion_core.net.exchange import Exchange
from diffusion_core.net.observing.observatory import Observatory


class FigureRoutes:
    """What the observatory knows, for those who may see it."""

    def __init__(self, observatory: Observatory) -> None:
        self._observatory = observatory

    async def metrics(self, exchange: Exchange) -> None:
        """All metrics, in the format that the client prefers."""
        if not exchange.caller().scopes & {Scope.METRICS, Scope.ADMIN}:
            raise Forbidden("this token does not allow metrics: ask for one with that scope")
        await exchange.answer_bytes(*await self._observatory.render_metrics(exchange.header("accept")))

    async def load(self, exchange: Exchange) -> None:
        """The live load as JSON; with ``?user=NAME``, the history of that user."""
        exchange.caller(Scope.ADMIN)
        report = await self._observatory.report_load(exchange.query("user"))
        await exchange.answer_bytes(json.dumps(report).encode(), "application/json")
