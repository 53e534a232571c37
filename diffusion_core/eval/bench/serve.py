"""Measures an engine server under several users at once: throughput, latency, and requests that failed.

Each user has a connection of its own and sends its next request when the answer is there. No prompt is used twice
as long as the file has others, so a request's prompt is computed, not remembered; what was reused all the same is
reported.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any

from diffusion_core.errors import UnmaskError
from diffusion_core.eval.ask import read_edit
from diffusion_core.eval.bench.prompts import Prompt
from diffusion_core.eval.report import divide, percentile
from diffusion_core.eval.run import Progress, Report
from diffusion_core.requests import CompletionRequest, EngineClient, Result, new_request_id


@dataclass(slots=True)
class Level:
    """What was measured with a number of users. Times are milliseconds as the users see them."""

    users: int
    seconds: float = 0.0
    answers: list[tuple[float, Result]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def num_requests(self) -> int:
        """Requests that were sent."""
        return len(self.answers) + self.errors.total()


async def measure_levels(
    connect: Callable[[], EngineClient],
    prompts: Sequence[Prompt],
    users: Sequence[int],
    requests_per_user: int,
    report: Report,
) -> list[Level]:
    """Load the server with each number of ``users`` in turn; ``connect`` opens one user's connection."""
    supply = cycle(prompts)
    total, done = sum(users) * requests_per_user, 0
    levels = []

    def count() -> None:
        nonlocal done
        done += 1
        report(Progress(done, total, 0, 0))

    for number in users:
        level = Level(number)
        shares = [list(islice(supply, requests_per_user)) for _ in range(number)]
        clients = [connect() for _ in range(number)]
        try:
            started = time.perf_counter()
            await asyncio.gather(
                *(_be_user(client, share, level, count) for client, share in zip(clients, shares, strict=True))
            )
            level.seconds = time.perf_counter() - started
        finally:
            await asyncio.gather(*(client.aclose() for client in clients))
        levels.append(level)
    return levels


async def _be_user(client: EngineClient, prompts: Sequence[Prompt], level: Level, count: Callable[[], None]) -> None:
    for prompt in prompts:
        request = replace(prompt, id=new_request_id())
        started = time.perf_counter()
        try:
            if isinstance(request, CompletionRequest):
                result = await client.complete(request)
            else:
                result = await read_edit(client, request, lambda frame: None)
        except UnmaskError as error:  # counted, not sent again: a server that refuses must not look fast
            level.errors[error.code] += 1
        else:
            level.answers.append(((time.perf_counter() - started) * 1000, result))
        count()


def summarize_level(level: Level) -> dict[str, Any]:
    """JSON of one number of users. Rates are over the time from the first request to the last answer."""
    results = [result for _, result in level.answers]
    tokens = sum(result.num_tokens for result in results)
    forwards = sum(result.num_forwards for result in results)
    prompt_tokens = sum(result.num_prompt_tokens for result in results)
    return {
        "users": level.users,
        "requests": level.num_requests,
        "answered": len(results),
        "errors": dict(sorted(level.errors.items())),
        "seconds": round(level.seconds, 4),
        "tokens": tokens,
        "nfe": forwards,
        "tokens_per_second": divide(tokens, level.seconds),
        "requests_per_second": divide(len(results), level.seconds),
        "tokens_per_forward": divide(tokens, forwards),
        "p50_ms": percentile([ms for ms, _ in level.answers], 0.50),
        "p95_ms": percentile([ms for ms, _ in level.answers], 0.95),
        "prompt_tokens": prompt_tokens,
        "reused_share": divide(sum(result.num_reused_tokens for result in results), prompt_tokens),
    }


def iterate_models(levels: Sequence[Level]) -> Iterator[str]:
    """Names of the models that answered."""
    return (result.model for level in levels for _, result in level.answers)
