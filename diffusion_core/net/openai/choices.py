"""Several answers at once, and their text as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from diffusion_core.chat import ChatRequest, stream_from
from diffusion_core.errors import EngineError, UnmaskError
from diffusion_core.requests import CompletionRequest, EngineClient, Result

Ask = CompletionRequest | ChatRequest
# Which answer, and the text that is new in it.
Emit = Callable[[int, str], Awaitable[None]]


async def answer_all(engine: EngineClient, requests: Sequence[Ask], emit: Emit | None = None) -> list[Result]:
    """The results of all ``requests``, in their order; ``emit`` is awaited for every new piece of text, one at a time.

    Requests that must have the same answer are asked once. When one fails, or the caller is cancelled, the others end.

    Raises:
        UnmaskError: the first failure.
    """
    lock = asyncio.Lock()
    shared: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        shared.setdefault(_find_equal(requests, request), []).append(index)

    async def run(first: int) -> Result:
        async def pass_on(text: str) -> None:
            assert emit is not None
            async with lock:
                for index in shared[first]:
                    await emit(index, text)

        return await _answer(engine, requests[first], pass_on if emit is not None else None)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {first: group.create_task(run(first)) for first in shared}
    except* UnmaskError as failures:
        raise _first(failures) from None
    results = {index: tasks[first].result() for first, same in shared.items() for index in same}
    return [results[index] for index in range(len(requests))]


async def _answer(engine: EngineClient, request: Ask, emit: Callable[[str], Awaitable[None]] | None) -> Result:
    sent = ""
    if emit is None and isinstance(request, CompletionRequest):
        return await engine.complete(request)
    async with aclosing(stream_from(engine, request)) as items:
        async for item in items:
            text = item.text if isinstance(item, Result) else item.settled
            # A loop that is cut off at the end has been shown already: what was sent is never taken back.
            if emit is not None and text.startswith(sent) and text != sent:
                await emit(text[len(sent) :])
                sent = text
            if isinstance(item, Result):
                return item
    raise EngineError("the engine ended the answer without a result")


def _find_equal(requests: Sequence[Ask], wanted: Ask) -> int:
    """The first request that asks for the same; each has an id of its own."""
    return next(index for index, each in enumerate(requests) if replace(each, id=wanted.id) == wanted)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
