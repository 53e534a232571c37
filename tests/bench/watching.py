"""What being watched costs: the same request with and without a watcher, in turns. ``python -m bench.watching``."""

from __future__ import annotations

import argparse
import asyncio
from statistics import median

from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.requests import CompletionRequest, DecodingParams, Policy, Result
from diffusion_core.trace import watch

PREFIX = '''def binary_search(items: list[int], wanted: int) -> int | None:
    """The index of `wanted` in the sorted `items`, or None."""
    low, high = 0, len(items) - 1
'''


async def measure(engine: AsyncEngine, policy: Policy, num_rounds: int, num_tokens: int) -> str:
    """Medians of the milliseconds a forward takes, alone and watched."""
    request = CompletionRequest(
        prefix=PREFIX, language="python", max_tokens=num_tokens, decoding=DecodingParams(policy=policy)
    )
    alone, watched = [], []
    await engine.complete(request)
    for _ in range(num_rounds):
        plain = await engine.complete(request)
        seen = [item async for item in watch(engine, request)][-1]
        assert isinstance(seen, Result) and seen.text == plain.text
        alone.append(plain.timings.denoise_ms / plain.num_forwards)
        watched.append(seen.timings.denoise_ms / seen.num_forwards)
    return f"{policy.value:15} {median(alone):7.1f} ms a forward, watched {median(watched):7.1f} ms"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=32)
    given = parser.parse_args()
    engine = AsyncEngine(EngineConfig(model=given.model, edit_model=given.model))
    engine.start()
    for policy in (Policy.AUTOREGRESSIVE, Policy.VERIFIED, Policy.CONFIDENCE):
        print(await measure(engine, policy, given.rounds, given.tokens), flush=True)
    await engine.aclose()


if __name__ == "__main__":
    asyncio.run(main())
