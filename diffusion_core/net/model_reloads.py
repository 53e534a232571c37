"""New checkpoints for a running engine: noticed in the files, or asked for by an administrator."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from diffusion_core.callers import Scope
from diffusion_core.checkpoints.store import checkpoint_files, locate
from diffusion_core.errors import CheckpointError, UnmaskError
from diffusion_core.net.deferred import ReloadsModels
from diffusion_core.net.exchange import CALLER_KEY
from diffusion_core.net.watch_files import State, look
from diffusion_core.requests import EngineClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReloadOutcome:
    """What became of one model: ``state`` is ``replaced`` or ``refused``, ``detail`` says why."""

    name: str
    state: str
    detail: str = ""


class ModelReloads:
    """Replaces the models of an engine when their files have changed."""

    def __init__(self, engine: EngineClient, tell: Callable[[str, str], None] | None = None) -> None:
        """``tell`` learns of every reload: the model's name, and what became of it (:class:`ReloadOutcome`)."""
        self._engine = engine
        self._tell = tell or (lambda name, state: None)
        self._known: dict[str, State] = {}
        self._changed: dict[str, tuple[State, float]] = {}

    async def reload_all(self) -> tuple[ReloadOutcome, ...]:
        """Load every model that is ready once more."""
        names = {model.name: None for model in (await self._engine.health()).models if model.state == "ready"}
        return tuple([await self._reload(name) for name in names])

    async def answer(self, request: Request) -> JSONResponse:
        """``POST /v1/admin/reload``: ``{"models": [{"name", "state", "detail"}]}``; 409 if one was refused."""
        if Scope.ADMIN not in request.scope[CALLER_KEY].scopes:
            return _fail(403, "forbidden", "this token does not allow admin: ask for one with that scope")
        try:
            outcomes = await self.reload_all()
        except UnmaskError as error:
            return _fail(error.http_status, error.code, str(error))
        status = 200 if all(outcome.state == "replaced" for outcome in outcomes) else 409
        return _answer({"models": [asdict(outcome) for outcome in outcomes]}, status)

    async def watch(self, poll_s: float, settle_s: float) -> None:
        """Replace models whose files have changed and then rested for ``settle_s`` seconds; until cancelled."""
        while True:
            try:
                await self._look(settle_s)
            except UnmaskError as error:
                logger.warning("models are not watched for the moment: %s", error.code)
            await asyncio.sleep(poll_s)

    async def _look(self, settle_s: float) -> None:
        for model in (await self._engine.health()).models:
            name, is_ready = model.name, model.state == "ready"
            if not is_ready and model.state != "loading":
                self._known.pop(name, None)
                continue
            seen = await asyncio.to_thread(_look_at, name)
            # While it loads already: files that change meanwhile are loaded once more.
            if self._known.setdefault(name, seen) == seen:
                self._changed.pop(name, None)
                continue
            state, since = self._changed.setdefault(name, (seen, time.monotonic()))
            if state != seen:
                self._changed[name] = seen, time.monotonic()
            elif is_ready and time.monotonic() - since >= settle_s:
                logger.info("the checkpoint of %s has changed", name)
                await self._reload(name)

    async def _reload(self, name: str) -> ReloadOutcome:
        if not isinstance(self._engine, ReloadsModels):
            return ReloadOutcome(name=name, state="refused", detail="this engine cannot take a new checkpoint")
        # Before anything is read: what changes from here on is one more change.
        self._known[name] = await asyncio.to_thread(_look_at, name)
        self._changed.pop(name, None)
        try:
            await self._engine.reload(name)
        except UnmaskError as error:
            logger.error("model %s was not replaced: %s", name, error)
            outcome = ReloadOutcome(name=name, state="refused", detail=str(error))
        else:
            outcome = ReloadOutcome(name=name, state="replaced")
        self._tell(name, outcome.state)
        return outcome


def _look_at(name: str) -> State:
    """The files of a model now; nothing while it is not there."""
    try:
        return look(checkpoint_files(locate(name)))
    except (CheckpointError, OSError):
        return ()


def _answer(content: dict[str, Any], status: int) -> JSONResponse:
    return JSONResponse(content, status, headers={"cache-control": "no-store"})


def _fail(status: int, code: str, message: str) -> JSONResponse:
    return _answer({"error": {"code": code, "message": message}}, status)
