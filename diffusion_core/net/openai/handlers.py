"""All handlers by method and path. Slow to import: the classes that check bodies, and their description, are made."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from diffusion_core.net.openai.description import describe_routes
from diffusion_core.net.openai.json_exchange import JsonExchange
from diffusion_core.net.openai.paths import DESCRIPTION_PATH
from diffusion_core.net.openai.routes import ROUTES, Run
from diffusion_core.net.openai.service import Service

_DESCRIPTION = describe_routes(ROUTES)


async def show_description(_: Service, exchange: JsonExchange) -> None:
    """``GET /openapi.json``."""
    exchange.caller()
    await exchange.answer_json(_DESCRIPTION)


HANDLERS: Mapping[tuple[str, str], Run] = MappingProxyType(
    {**{(route.method, route.path): route.run for route in ROUTES}, ("GET", DESCRIPTION_PATH): show_description}
)
