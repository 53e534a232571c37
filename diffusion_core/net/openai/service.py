"""What the routes share: whose engine, which models, and how an answer is sent whole or piece by piece."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable

from diffusion_core.callers import Caller, engine_for
from diffusion_core.errors import Overloaded
from diffusion_core.net.openai.failures import ModelNotFound
from diffusion_core.net.openai.json_exchange import JsonExchange
from diffusion_core.requests import EngineClient, Health, ModelStatus

# Names that a client may send where it has to send one.
DEFAULT_NAMES = frozenset({"", "default"})
_ROUTES = "diffusion_core.net.openai.handlers"


class Service:
    """The engine as the routes see it."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self.born = int(time.time())

    def engine_for(self, caller: Caller) -> EngineClient:
        """The engine on behalf of a caller."""
        return engine_for(self._engine, caller)

    def handler(self, method: str, path: str) -> Callable[[JsonExchange], Awaitable[None]]:
        """The handler of a route."""

        async def handle(exchange: JsonExchange) -> None:
            # Off the loop: importing takes a quarter of a second, once.
            routes = await asyncio.to_thread(importlib.import_module, _ROUTES)
            await routes.HANDLERS[method, path](self, exchange)

        return handle

    async def health(self) -> Health:
        """The state of the engine."""
        return await self._engine.health()

    async def models(self) -> dict[str, list[ModelStatus]]:
        """The models that are served, by name, with what each is for.

        Raises:
            Overloaded: the engine is still being made, and nothing is known yet.
        """
        found: dict[str, list[ModelStatus]] = {}
        for status in (await self.health()).models:
            found.setdefault(status.name, []).append(status)
        if not found:
            raise Overloaded("the model is still loading: try again shortly")
        return found

    async def resolve(self, name: str | None, task: str) -> tuple[str, str]:
        """The model a request names, as the engine wants it (empty for the default of the task), and its name.

        Raises:
            ModelNotFound: it is not served.
        """
        models = (await self.health()).models
        if name is None or name in DEFAULT_NAMES:
            return "", next((status.name for status in models if status.task == task), "")
        served = {status.name for status in models}
        # While the engine is being made nothing is known: it will say itself what it does not have.
        if served and name not in served:
            raise ModelNotFound(f"the model is not served here: this server has {', '.join(sorted(served))}")
        return name, name


def draw_seed() -> int:
    """A seed for who names none."""
    return time.time_ns() & 0x7FFF_FFFF


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())
