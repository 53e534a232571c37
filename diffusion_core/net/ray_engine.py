"""The engine as several replicas on Ray Serve: requests go to the replica that knows their prompt, and outlive it.

A request whose replica died is sent to another one, within its deadline; an edit begins anew there, and so does its
preview.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from diffusion_core.callers import OWNER, Caller
from diffusion_core.errors import Closed, EngineError, Overloaded, UnmaskError, Unreachable
from diffusion_core.net.affinity import affinity_key
from diffusion_core.net.attempts import Attempts
from diffusion_core.net.protocol import WireError
from diffusion_core.net.remote import reset_frame
from diffusion_core.requests import CompletionRequest, EditRequest, Health, PreviewFrame, Result, WarmRequest

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_MAX_ATTEMPTS = 8
_HEALTH_TIMEOUT_S = 5.0


class RayCalls:
    """Requests of one caller to the replicas behind ``handle``."""

    def __init__(self, handle: DeploymentHandle[Any], caller: Caller) -> None:
        self._handle, self._caller = handle, caller

    async def complete(self, request: CompletionRequest) -> Result:
        """Answer a completion."""
        attempts = Attempts(request.deadline_ms, _MAX_ATTEMPTS)
        while True:
            try:
                again = replace(request, deadline_ms=attempts.left_ms)
                return cast("Result", await self._call("complete", again))
            except Unreachable as error:
                await attempts.pause_after(error)

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        """Stream preview frames, then the result."""
        attempts = Attempts(request.deadline_ms, _MAX_ATTEMPTS)
        has_shown = False
        while True:
            try:
                again = replace(request, deadline_ms=attempts.left_ms)
                async with aclosing(self._stream(again)) as items:
                    async for item in items:
                        has_shown = True
                        yield item
                return
            except Unreachable as error:
                await attempts.pause_after(error)
            if has_shown:
                has_shown = False
                yield reset_frame(request)

    async def warm(self, request: WarmRequest) -> None:
        """Compute the prompt of an expected request, where that request will go."""
        await self._call("warm", request)

    async def health(self) -> Health:
        """The state of all replicas together: sums, and the latency of the slowest."""
        found: list[Health] = []
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                async for health in self._healths():
                    found.append(health)
        except (TimeoutError, Unreachable):
            if not found:
                raise Unreachable("no replica of the engine answers") from None
        return _add_up(found)

    async def aclose(self) -> None:
        """Nothing: the replicas belong to others too."""

    async def _call(self, name: str, request: CompletionRequest | WarmRequest) -> object:
        key = affinity_key(self._caller, request)
        return await self._ask(getattr(self._handle, name).remote(request, self._caller, key=key))

    async def _ask(self, response: Any) -> object:
        """What a replica answers; nobody waiting any more cancels its work."""
        try:
            answer = await response
        except asyncio.CancelledError:
            response.cancel()
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise Unreachable("a replica of the engine gave the request up") from None
        except Exception as error:
            raise _translate(error) from None
        if isinstance(answer, WireError):
            raise _as_error(answer)
        return cast("object", answer)

    async def _healths(self, *, waits: bool = False) -> AsyncGenerator[Health, None]:
        """The state of each replica, one after the other; with ``waits`` also of those that are full, when they can."""
        from diffusion_core.net.ray_router import numbered_key

        seen: set[str] = set()
        for number in itertools.count():
            response = self._handle.health.remote(key=numbered_key(number, is_exact=waits))
            replica, health = cast("tuple[str, Health | WireError]", await self._ask(response))
            if replica in seen:
                return
            seen.add(replica)
            if isinstance(health, WireError):
                raise _as_error(health)
            yield health

    async def _stream(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        key = affinity_key(self._caller, request)
        response = self._handle.options(stream=True).edit.remote(request, self._caller, key=key)
        has_ended = False
        try:
            async for item in response:
                has_ended = not isinstance(item, PreviewFrame)
                if isinstance(item, WireError):
                    raise _as_error(item)
                yield item
        except UnmaskError:
            raise
        except Exception as error:
            raise _translate(error) from None
        finally:
            if not has_ended:
                response.cancel()
        if not has_ended:
            raise Unreachable("a replica of the engine ended the edit without a result")


class RayEngine(RayCalls):
    """An :class:`~diffusion_core.requests.EngineClient` whose work is done by the replicas behind ``handle``."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        super().__init__(handle, OWNER)

    def start(self) -> None:
        """Nothing: the replicas have loaded their models when there is a handle."""

    async def reload(self, name: str) -> None:
        """Replace the model of that name in one replica after the other; the others answer meanwhile.

        Raises:
            UnmaskError: why a replica refused the new checkpoint; those that had taken it keep it.
        """
        from diffusion_core.net.ray_router import numbered_key

        # None may be left out because it is full: it would go on with the old one.
        num_replicas = len([health async for health in self._healths(waits=True)])
        for number in range(num_replicas):
            await self._ask(self._handle.reload.remote(name, key=numbered_key(number, is_exact=True)))

    def on_behalf_of(self, caller: Caller) -> RayCalls:
        """The same engine for requests of ``caller``."""
        return RayCalls(self._handle, caller)


def _add_up(each: list[Health]) -> Health:
    """One account of several replicas of the same models."""
    first = each[0]
    return replace(
        first,
        device=f"{len(each)} x {first.device}",
        memory_bytes=sum(health.memory_bytes for health in each),
        num_active=sum(health.num_active for health in each),
        num_completed=sum(health.num_completed for health in each),
        num_forwards=sum(health.num_forwards for health in each),
        uptime_ms=max(health.uptime_ms for health in each),
        latency_p50_ms=max(health.latency_p50_ms for health in each),
        latency_p95_ms=max(health.latency_p95_ms for health in each),
    )


def _as_error(answer: WireError) -> UnmaskError:
    error = answer.as_exception()
    # A replica that is being taken away refuses new work: another one will not.
    return Unreachable(str(error)) if isinstance(error, Closed) else error


def _translate(error: Exception) -> UnmaskError:
    """What went wrong between here and a replica. Its own words may quote the request and are dropped."""
    import ray.exceptions
    from ray.serve import exceptions as serve_exceptions

    gone = (
        ray.exceptions.RayActorError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.TaskCancelledError,
        ray.exceptions.ObjectLostError,
        serve_exceptions.ReplicaUnavailableError,
    )
    if isinstance(error, serve_exceptions.BackPressureError):
        return Overloaded("all replicas are busy and too many requests wait: try again", retry_after_s=1.0)
    if isinstance(error, gone):
        return Unreachable("a replica of the engine was lost while it worked")
    return EngineError(f"the cluster failed with {type(error).__name__}")
