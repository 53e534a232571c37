"""The caches kept between requests: within their memory, in the model's dtype, and never a wrong key."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from helpers.tiny_models import save_tiny_checkpoint, tiny_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.prefix_cache import PrefixCache
from diffusion_core.model.config import DrafterKind
from diffusion_core.requests import CompletionRequest

LIMIT = 600_000  # bytes: a few of the tiny model's caches


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    checkpoint = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")
    config = EngineConfig(model=str(checkpoint), dtype="float32", prefix_cache_bytes=LIMIT, max_context_tokens=2048)
    made = Engine(config)
    made.start()
    yield made
    made.close()


def loaded(engine: Engine) -> LoadedModel:
    return engine._hosts.loaded()[0]


def test_under_pressure_the_memory_is_bounded_and_the_texts_are_right(engine: Engine) -> None:
    """Many windows that type in turn, far more text than may be kept; each answer is that of a fresh engine."""
    draw = random.Random(4)
    windows = ["".join(draw.choice("abc (=)\n") for _ in range(draw.randrange(50, 900))) for _ in range(12)]
    expected: dict[str, str] = {}
    most = 0
    for _ in range(3):
        for window in windows:
            jobs = [
                engine.submit(CompletionRequest(prefix=window + typed, max_tokens=6, stop_at_scope=False))
                for typed in ("", "x", "xy")
            ]
            for typed, job in zip(("", "x", "xy"), jobs, strict=True):
                text = job.future.result(timeout=60).text
                assert expected.setdefault(window + typed, text) == text
            most = max(most, loaded(engine).prefix_cache.num_bytes)
            assert loaded(engine).prefix_cache.num_bytes <= LIMIT
    assert most > LIMIT / 2, "there was pressure"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("drafter", [DrafterKind.NONE, DrafterKind.DRAFT_HEAD])
def test_keys_and_values_are_in_the_models_dtype(dtype: torch.dtype, drafter: DrafterKind) -> None:
    denoiser = tiny_denoiser(drafter=drafter)
    denoiser.model.to(dtype)
    cache, _ = PrefixCache(denoiser, LIMIT).take(list(range(40)), 8)
    config = denoiser.model.config
    stores = [cache.base, *([cache.head] if cache.head else [])]
    for store in stores:
        assert {tensor.dtype for tensor in store.committed(0)} == {dtype}
    per_position = 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize
    assert cache.base.num_bytes == per_position * cache.base.capacity


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=300), st.integers(0, 400)), max_size=20))
def test_whatever_is_given_back_the_bound_holds_and_the_newest_stays(given_back: list[tuple[list[int], int]]) -> None:
    denoiser = tiny_denoiser()
    kept = PrefixCache(denoiser, 300_000)
    for tokens, more in given_back:
        cache, shared = kept.take(tokens, more)
        assert shared <= max(len(tokens) - 1, 0)
        cache.base.commit(len(tokens) - shared)
        kept.give(tokens, cache)
        assert kept.num_bytes <= 300_000
        if cache.num_bytes <= 300_000:
            again, reused = kept.take([*tokens, 3], 0)
            assert reused == len(tokens)
            kept.give(tokens, again)
