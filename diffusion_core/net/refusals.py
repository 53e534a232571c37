"""An error as the answer to a request that reaches no route, in the shape that its client reads."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from diffusion_core.errors import UnmaskError
from diffusion_core.net.exchange import Exchange
from diffusion_core.net.openai.json_exchange import JsonExchange
from diffusion_core.net.openai.paths import is_json_path
from diffusion_core.net.watching import WATCH_PATHS, JsonLines

_LINE_PATHS = WATCH_PATHS | {"/v1/load", "/metrics"}  # as their handlers answer


async def refuse(scope: Scope, receive: Receive, send: Send, error: UnmaskError) -> None:
    """Answer with ``error``."""
    await _kind(scope["path"])(scope, receive, send, max_bytes=0).fail(error)


def _kind(path: str) -> type[Exchange]:
    if is_json_path(path):
        return JsonExchange
    return JsonLines if path in _LINE_PATHS else Exchange
