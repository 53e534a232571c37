"""How an answer came about, forward by forward: for people who want to see a block being denoised. No torch here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import CompletionRequest, EditRequest, EngineClient, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceToken:
    """A token as text (empty: it shows nothing, or only together with the next one).

    ``confidence`` is the probability, at temperature 1, that the model gave to this token at its place; of a drafter
    with a head of its own it is that head's. None: nothing was computed that says so.
    """

    text: str
    confidence: float | None
    is_end: bool = False  # a token that ends an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSlot:
    """A place of the active block. Where it ``is_masked`` the token is only what the model would put there now."""

    token: TraceToken
    is_masked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFrame:
    """One forward. Those that compute the prompt have ``num_prefilled`` rows and no tokens.

    ``settled`` tokens were committed by it for good, the first ``num_accepted`` of them as the draft had them.
    ``rejected`` is the rest of that draft, which came from ``source``. ``slots`` is what stands behind the settled
    tokens afterwards and may still change. ``expected`` is the text that an edit goes on with if nothing else changes.
    ``ms`` counts from when the engine began on the request.
    """

    id: str
    ms: float
    num_prefilled: int = 0
    settled: tuple[TraceToken, ...] = ()
    num_accepted: int = 0
    rejected: tuple[TraceToken, ...] = ()
    source: str = ""
    slots: tuple[TraceSlot, ...] = ()
    expected: str = ""


@runtime_checkable
class Watchable(Protocol):
    """An engine that shows how it decodes."""

    def watch(self, request: CompletionRequest | EditRequest) -> AsyncIterator[TraceFrame | Result]:
        """Stream a frame for each forward, then exactly one :class:`Result` as the last item."""
        ...


async def watch(
    engine: EngineClient, request: CompletionRequest | EditRequest
) -> AsyncGenerator[TraceFrame | Result, None]:
    """What ``engine`` shows of ``request``; closing the iterator early cancels the request.

    Raises:
        InvalidRequest: this kind of engine cannot be watched.
    """
    if not isinstance(engine, Watchable):
        raise InvalidRequest("this engine cannot be watched: only one that runs in the server itself can")
    items = engine.watch(request)
    try:
        async for item in items:
            yield item
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
