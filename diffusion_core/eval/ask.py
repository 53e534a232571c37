"""Asking an engine and waiting for the whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from diffusion_core.errors import DeadlineExceeded, EngineError, UnmaskError
from diffusion_core.requests import CompletionRequest, EditRequest, EngineClient, Health, PreviewFrame, Result

MAX_ATTEMPTS = 5
READY_POLL_S = 0.2


async def wait_ready(client: EngineClient) -> Health:
    """Wait until the engine has loaded its model.

    Raises:
        EngineError: loading failed; the message is the engine's.
    """
    while (health := await client.health()).status == "loading":  # noqa: ASYNC110 - another process is loading
        await asyncio.sleep(READY_POLL_S)
    if health.status != "ready":
        details = "; ".join(filter(None, (*(model.detail for model in health.models), *health.notices)))
        raise EngineError(f"the engine is {health.status}: {details or 'no reason given'}")
    return health


async def read_edit(client: EngineClient, request: EditRequest, show: Callable[[PreviewFrame], None]) -> Result:
    """The result of an edit; ``show`` gets the preview frames. The stream is read to its end.

    Raises:
        EngineError: the engine ended the stream without a result.
    """
    result: Result | None = None
    async for event in client.edit(request):
        if isinstance(event, Result):
            result = event
        else:
            show(event)
    if result is None:
        raise EngineError("the engine ended the edit without a result")
    return result


async def ask(client: EngineClient, make_request: Callable[[], CompletionRequest | EditRequest]) -> Result:
    """Send a request, and again after a pause when the error says that this may help."""
    attempt = 1
    while True:
        try:
            request = make_request()
            if isinstance(request, CompletionRequest):
                return await client.complete(request)
            return await read_edit(client, request, lambda frame: None)
        except UnmaskError as error:
            if not error.retryable or isinstance(error, DeadlineExceeded) or attempt == MAX_ATTEMPTS:
                raise
        await asyncio.sleep(0.25 * 2**attempt)
        attempt += 1
