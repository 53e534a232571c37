"""Users of one engine: what is kept of a prompt is found by its own space only, and no text crosses over."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench.canaries import TENANTS, run
from helpers.tiny_models import save_tiny_checkpoint, tiny_denoiser

from diffusion_core.callers import OWNER
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.prefix_cache import PROTECTED_S, PrefixCache
from diffusion_core.requests import CompletionRequest, Result

ADA, BEN = (replace(OWNER, user=name, space=name) for name in ("ada", "ben"))
TEAM = [replace(OWNER, user=name, space="team") for name in ("cleo", "dan")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    model = str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model"))
    made = Engine(EngineConfig(model=model, dtype="float32", max_context_tokens=2048))
    made.start()
    yield made
    made.close()


def ask(engine: Engine, prefix: str, caller: object) -> Result:
    request = CompletionRequest(prefix=prefix, max_tokens=4, stop_at_scope=False)
    return engine.submit(request, caller=caller).future.result(timeout=60)  # type: ignore[arg-type]


def test_a_prompt_of_another_space_is_computed_anew(engine: Engine) -> None:
    prompt = "value = compute(1, 2)\n" * 8
    first = ask(engine, prompt, ADA)
    other = ask(engine, prompt, BEN)
    again = ask(engine, prompt, ADA)
    assert (first.num_reused_tokens, other.num_reused_tokens) == (0, 0)
    assert again.num_computed_tokens == 1
    assert first.text == other.text == again.text


def test_users_of_a_shared_space_reuse_each_other_s_prompts(engine: Engine) -> None:
    prompt = "total = add(3, 4)\n" * 8
    assert ask(engine, prompt, TEAM[0]).num_reused_tokens == 0
    assert ask(engine, prompt, TEAM[1]).num_computed_tokens == 1


def fill(kept: PrefixCache, space: str, seed: int, length: int = 100) -> list[int]:
    """Have a random sequence kept for ``space``."""
    draw = random.Random(seed)
    tokens = [seed % 250, *(draw.randrange(250) for _ in range(length - 1))]  # no two begin alike
    cache, _ = kept.take(tokens, 0, space)
    cache.base.commit(length - cache.length)
    kept.give(tokens, cache, space)
    return tokens


def finds(kept: PrefixCache, space: str, tokens: list[int]) -> bool:
    cache, shared = kept.take([*tokens, 1], 0, space)
    if shared:
        kept.give(tokens, cache, space)
    return shared == len(tokens)


def test_a_space_keeps_its_share_whatever_others_store() -> None:
    denoiser, now = tiny_denoiser(), [0.0]
    one = PrefixCache(denoiser, 0).bytes_for(100, 0)
    kept = PrefixCache(denoiser, 6 * one, clock=lambda: now[0])
    mine = [fill(kept, "small", seed) for seed in range(2)]
    for seed in range(50):
        fill(kept, "greedy", 100 + seed)
        assert kept.num_bytes <= 6 * one
    assert all(finds(kept, "small", tokens) for tokens in mine)
    now[0] = 2 * PROTECTED_S
    for seed in range(6):
        fill(kept, "greedy", 200 + seed)
    assert not any(finds(kept, "small", tokens) for tokens in mine), "who is long gone has no share"


def test_a_space_alone_has_all_of_the_memory() -> None:
    denoiser = tiny_denoiser()
    one = PrefixCache(denoiser, 0).bytes_for(100, 0)
    kept = PrefixCache(denoiser, 5 * one)
    sequences = [fill(kept, "only", seed) for seed in range(9)]
    assert [finds(kept, "only", tokens) for tokens in sequences] == [False] * 4 + [True] * 5


def test_no_secret_of_a_tenant_reaches_the_other(tmp_path: Path) -> None:
    found = run(80, tmp_path)
    assert found.failures == []
    assert found.repeated_secrets > 0, "the search finds what is there"
    shared = {name: replace(caller, space="both") for name, caller in TENANTS.items()}
    assert run(10, tmp_path, tenants=shared).crossings, "and would find a prompt that crossed over"
