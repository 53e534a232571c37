"""A real engine client whose work is scripted, for tests of timing, cancellation and crashes of the transport.

``python -m helpers.scripted_engine`` is an engine process like the launcher's own, around this engine. What a request
does is chosen by its ``model`` field; the length of a forward and of loading by environment variables.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator

from diffusion_core.config import EngineConfig
from diffusion_core.decoding_report import DecodingReport
from diffusion_core.errors import CheckpointError, DeadlineExceeded, Overloaded, UnmaskError
from diffusion_core.net.engine_process import main
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    FinishReason,
    Health,
    PreviewFrame,
    Result,
    WarmRequest,
)

FORWARD_VARIABLE = "SCRIPTED_FORWARD_S"
LOAD_VARIABLE = "SCRIPTED_LOAD_S"
FAILING_MODEL = "not-downloaded"
LATE_FAILING_MODEL = "fails-while-loading"


class ScriptedEngine:
    """Each request runs ``max_tokens`` forwards of ``forward_s`` each; a cancel takes effect between two of them."""

    def __init__(self, *, forward_s: float = 0.02, load_s: float = 0.0, load_error: UnmaskError | None = None) -> None:
        self.forward_s = forward_s
        self.num_forwards = 0
        self.num_active = 0
        self.num_completed = 0
        self.num_cancelled = 0
        self.warmed: list[WarmRequest] = []
        self.decoding: tuple[DecodingReport, ...] = ()
        self._load_s = load_s
        self._load_error = load_error
        self._loading: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        await asyncio.sleep(self._load_s)
        if self._load_error:
            raise self._load_error

    async def _run(self, num_forwards: int) -> None:
        if self._loading is not None:
            await asyncio.shield(self._loading)
        self.num_active += 1
        try:
            for _ in range(num_forwards):
                await asyncio.sleep(self.forward_s)
                self.num_forwards += 1
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_active -= 1
        self.num_completed += 1

    async def complete(self, request: CompletionRequest) -> Result:
        match request.model:
            case "bug":
                raise RuntimeError(f"this quotes the code: {request.prefix}")
            case "busy":
                raise Overloaded("64 requests are waiting: try again")
            case "late":
                await self._run(request.max_tokens)
                raise DeadlineExceeded("nothing was ready after 10 ms")
            case "die":
                os._exit(9)
        await self._run(request.max_tokens)
        return Result(
            id=request.id,
            text=request.prefix[::-1],
            finish_reason=FinishReason.STOP,
            num_forwards=request.max_tokens,
            model=request.model,
        )

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        for index in range(request.max_tokens):
            await self._run(1)
            if request.model == "bug" and index == 1:
                raise RuntimeError(f"this quotes the code: {request.selection}")
            if request.model == "busy" and index == 1:
                raise Overloaded("stopped half way")
            try:
                yield PreviewFrame(id=request.id, settled=request.selection[:index], unsettled=f"{time.monotonic()}")
            except GeneratorExit:
                self.num_cancelled += 1
                raise
        if request.model != "endless":
            yield Result(id=request.id, text=request.instruction, finish_reason=FinishReason.STOP)

    async def warm(self, request: WarmRequest) -> None:
        await self._run(1)
        self.warmed.append(request)

    async def health(self) -> Health:
        status, notices = "ready", ()
        if self._loading is not None and not self._loading.done():
            status = "loading"
        elif self._loading is not None and self._load_error:
            status, notices = "failed", (str(self._load_error),)
        return Health(
            status=status,
            version="0",
            device="cpu",
            dtype="float32",
            num_active=self.num_active,
            num_completed=self.num_completed,
            num_forwards=self.num_forwards,
            notices=notices,
            decoding=self.decoding,
        )

    async def aclose(self) -> None:
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)


def make_scripted_engine(config: EngineConfig) -> ScriptedEngine:
    if config.model == FAILING_MODEL:
        raise CheckpointError("model small is not downloaded: run `unmask pull small`")
    error = CheckpointError("tensor lm_head has the wrong shape") if config.model == LATE_FAILING_MODEL else None
    return ScriptedEngine(
        forward_s=float(os.environ.get(FORWARD_VARIABLE, "0.02")),
        load_s=float(os.environ.get(LOAD_VARIABLE, "0")),
        load_error=error,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], make_scripted_engine))
