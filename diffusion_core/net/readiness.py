"""Whether a server may be sent requests: for load balancers and supervisors, so without a token and without details.

``GET /livez`` answers as long as the process does. ``GET /readyz`` answers 200 ``ready``, or 503 and one word:
``loading``, ``failed``, ``draining``, ``database``, ``unresponsive``.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, runtime_checkable

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from diffusion_core.errors import UnmaskError
from diffusion_core.net.activity import Activity
from diffusion_core.requests import EngineClient

# Probes give up sooner or later themselves; this is well below what they wait.
_TIMEOUT_S = 2.0


@runtime_checkable
class ReportsReadiness(Protocol):
    """A part of the server that may be unable to do its work for a while."""

    async def why_not_ready(self) -> str:
        """One word for what is missing; empty if nothing is."""
        ...


class Readiness:
    """Answers the two probes. ``parts`` are asked if they report readiness at all."""

    def __init__(self, engine: EngineClient, activity: Activity, *parts: object) -> None:
        self._engine, self._activity = engine, activity
        self._parts = [part for part in parts if isinstance(part, ReportsReadiness)]

    async def say_alive(self, _: Request) -> PlainTextResponse:
        """The process answers."""
        return PlainTextResponse("ok")

    async def say_ready(self, _: Request) -> PlainTextResponse:
        """Whether requests will be answered."""
        reason = await self.why_not_ready()
        headers = {"cache-control": "no-store"}
        return PlainTextResponse(reason or "ready", status_code=503 if reason else 200, headers=headers)

    async def why_not_ready(self) -> str:
        """One word; empty when the server is ready."""
        if self._activity.is_draining:
            return "draining"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status = (await self._engine.health()).status
                if status != "ready":
                    return status
                for part in self._parts:
                    if reason := await part.why_not_ready():
                        return reason
        except TimeoutError:
            return "unresponsive"
        except UnmaskError:
            return "failed"
        return ""
