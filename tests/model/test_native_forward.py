"""Forwards by the compiled kernels: near those of torch, and a row's bits independent of everything beside it."""

from __future__ import annotations

import copy
import gc
import threading
from dataclasses import dataclass

import pytest
import torch
from helpers.tiny_models import SHAPES, tiny_adapter, tiny_config, tiny_transformer
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import DiffusionConfig, ModelConfig
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import block_causal, causal, causal_context
from diffusion_core.model.native_forward import why_not_native
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.together import SequenceRows, evaluate_together
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser

# Queries, keys and values are rounded to bfloat16, which models of random weights make much of; what is wrong differs
# by more than a third.
NEAR = 0.07

pytestmark = pytest.mark.skipif(bool(why_no_kernels()), reason=why_no_kernels())


def wide_config(shape: str, **changes: object) -> ModelConfig:
    sizes = {"hidden_size": 144, "intermediate_size": 336, "num_layers": 3, "num_heads": 6, "head_dim": 32}
    return tiny_config(shape, **(sizes | changes))


@dataclass
class Pair:
    """A model twice, with the same weights in 8 bits: by the kernels, and by torch in float32."""

    native: Transformer
    plain: Transformer
    adapter: GatedAdapter

    def cache(self, model: Transformer, capacity: int = 64) -> KVCache:
        return KVCache(model.config, capacity=capacity, dtype=model.dtype)


def pair_of(shape: str, seed: int = 0, **changes: object) -> Pair:
    base = tiny_transformer(shape, seed, **(dict(wide_config(shape).__dict__) | changes)).bfloat16()
    native, plain = base, copy.deepcopy(base).float()
    native.pack(quantize=Quantization.INT8)
    plain.pack(quantize=Quantization.INT8)
    assert native.native is not None
    assert plain.native is None
    return Pair(native, plain, tiny_adapter(native.config))


PAIRS = {shape: pair_of(shape) for shape in SHAPES} if not why_no_kernels() else {}


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact.float()).norm() / exact.float().norm())


def random_tokens(count: int, seed: int) -> list[int]:
    return torch.randint(0, 250, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def random_mask(rows: int, seed: int) -> torch.Tensor:
    visible = torch.rand(rows, rows, generator=torch.Generator().manual_seed(seed)) < 0.5
    return visible | torch.eye(rows, dtype=torch.bool)


def forward(
    model: Transformer, cache: KVCache, tokens: list[int], visible: torch.Tensor, **rest: object
) -> torch.Tensor:
    ids = torch.tensor([tokens])
    positions = torch.arange(cache.length, cache.length + len(tokens)).unsqueeze(0)
    hidden: torch.Tensor = model(ids, positions, visible, cache=cache, **rest)
    return hidden[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("committed", [0, 1, 31, 200])
@pytest.mark.parametrize("rows", [2, 16, 37, 130])
@torch.inference_mode()
def test_rows_behind_a_cache_are_near_those_of_torch(shape: str, committed: int, rows: int) -> None:
    pair, tokens = PAIRS[shape], random_tokens(committed + rows, rows)
    masks = [causal(rows), random_mask(rows, rows), block_causal(torch.arange(rows), 5)]
    for visible in masks:
        found = []
        for model in (pair.native, pair.plain):
            cache = pair.cache(model)
            if committed:
                forward(model, cache, tokens[:committed], causal(committed))
                cache.commit(committed)
            found.append(forward(model, cache, tokens[committed:], visible))
            found += [torch.stack([x for i in range(3) for x in cache.committed(i)])]
        assert relative_error(found[0], found[2]) < NEAR
        if committed:
            assert relative_error(found[1], found[3]) < NEAR


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_slots_are_changed_by_the_adapter_and_clean_rows_are_not(shape: str) -> None:
    pair, tokens = PAIRS[shape], random_tokens(60, 3)
    visible = causal_context(9, (4, 7), (3, 9))
    slots = [pair.adapter.mask_token_id] * 11
    found = {}
    for name, model in (("native", pair.native), ("plain", pair.plain)):
        cache = pair.cache(model)
        forward(model, cache, tokens[:40], causal(40))
        cache.commit(40)
        found[name] = forward(model, cache, [*tokens[40:49], *slots], visible, adapter=pair.adapter, first_slot=9)
        found[f"{name} clean"] = forward(model, cache, tokens[40:49], causal(9))
        found[f"{name} without"] = forward(
            model, cache, [*tokens[40:49], *[1] * 11], visible, adapter=None, first_slot=9
        )
    assert relative_error(found["native"], found["plain"]) < NEAR
    assert torch.equal(found["native"][:9], found["native clean"])
    assert relative_error(found["native"][9:], found["native without"][9:]) > 0.2


@torch.inference_mode()
def test_an_adapter_is_laid_out_when_it_is_bound_and_held_once() -> None:
    pair, tokens, visible = PAIRS["qwen2"], random_tokens(6, 4), causal_context(6, (3,), (6,))
    rows = [*tokens, *[pair.adapter.mask_token_id] * 3]
    expected = forward(pair.native, pair.cache(pair.native), rows, visible, adapter=pair.adapter, first_slot=6)
    bound = copy.deepcopy(pair.adapter)
    bound.bind(pair.native, serve=True)
    assert pair.native.native is not None
    assert pair.native.native._adapters[id(bound)].adapter is bound
    assert not bound._served
    found = forward(pair.native, pair.cache(pair.native), rows, visible, adapter=bound, first_slot=6)
    assert torch.equal(found, expected)


@torch.inference_mode()
def test_a_long_cache_and_many_rows() -> None:
    pair, tokens = PAIRS["qwen2"], random_tokens(2400, 5)
    found = []
    for model in (pair.native, pair.plain):
        cache = pair.cache(model)
        for start in range(0, 2100, 300):
            forward(model, cache, tokens[start : start + 300], causal(300))
            cache.commit(300)
        found.append(forward(model, cache, tokens[2100:], causal(300)))
    assert relative_error(found[0], found[1]) < NEAR


@torch.inference_mode()
def test_taps_and_parts_of_the_layers() -> None:
    pair, tokens = PAIRS["qwen2"], random_tokens(12, 6)
    found = []
    for model in (pair.native, pair.plain):
        tapped: list[torch.Tensor] = []
        hidden = forward(model, pair.cache(model), tokens, causal(12), taps=(0, 2, 3), tapped=tapped)
        middle = forward(model, pair.cache(model), tokens, causal(12), only=slice(0, 2))
        assert [each.shape for each in tapped] == [(1, 12, 144)] * 3
        assert relative_error(model.norm(tapped[1]), middle) < 0.01
        assert relative_error(model.norm(tapped[2]), hidden) < 0.01
        found.append((hidden, middle, *tapped))
    for native, plain in zip(*found, strict=True):
        assert relative_error(native, plain) < NEAR


@torch.inference_mode()
def test_what_is_committed_is_not_touched_and_drafts_leave_nothing_behind() -> None:
    pair, tokens = PAIRS["qwen3"], random_tokens(80, 7)
    cache = pair.cache(pair.native)
    forward(pair.native, cache, tokens[:40], causal(40))
    cache.commit(40)
    before = [x.clone() for i in range(3) for x in cache.committed(i)]
    expected = forward(pair.native, cache, tokens[40:50], causal(10))
    forward(pair.native, cache, random_tokens(90, 8), causal(90))
    assert torch.equal(forward(pair.native, cache, tokens[40:50], causal(10)), expected)
    assert all(
        torch.equal(a, b) for a, b in zip(before, [x for i in range(3) for x in cache.committed(i)], strict=True)
    )


def sequences_of(seeds: list[int], with_slots: bool) -> list[tuple[list[int], list[int], int]]:
    """A prompt, rows and the number of clean ones, for each seed."""
    made = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        length, rows = (int(torch.randint(0, most, (1,), generator=generator)) for most in (150, 12))
        num_slots = int(torch.randint(0, 5, (1,), generator=generator)) if with_slots else 0
        made.append((random_tokens(length, seed), random_tokens(rows + 1, seed + 1), num_slots))
    return made


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(SHAPES), st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True), st.booleans(),
    st.integers(1, 3),
)  # fmt: skip
def test_rows_have_the_same_bits_alone_and_together(
    shape: str, seeds: list[int], with_slots: bool, threads: int
) -> None:
    pair, wanted = PAIRS[shape], []
    asked: list[SequenceRows] = []
    mask_id = pair.adapter.mask_token_id
    with torch.inference_mode():
        for prompt, rows, num_slots in sequences_of(seeds, with_slots):
            cache = pair.cache(pair.native)
            if prompt:
                forward(pair.native, cache, prompt, causal(len(prompt)))
                cache.commit(len(prompt))
            tokens = [*rows, *[mask_id] * num_slots]
            visible = causal_context(len(rows), (num_slots,), (len(rows),)) if num_slots else causal(len(rows))
            rest = {"adapter": pair.adapter, "first_slot": len(rows)} if num_slots else {}
            wanted.append(forward(pair.native, cache, tokens, visible, **rest))
            if len(rows) > 1:
                assert torch.equal(
                    forward(pair.native, cache, rows[:-1], causal(len(rows) - 1)), wanted[-1][: len(rows) - 1]
                )
            positions = list(range(cache.length, cache.length + len(tokens)))
            asked.append(SequenceRows(cache, tokens, positions, visible, len(rows)))
        if sum(len(each.tokens) for each in asked) < 2:
            return
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            outcomes = evaluate_together(pair.native, pair.adapter, asked, taps=(1,))
        finally:
            torch.set_num_threads(before)
    for (hidden, taps), expected in zip(outcomes, wanted, strict=True):
        assert torch.equal(hidden, expected)
        assert taps[0].shape == (1, len(expected), 144)


def test_a_prompt_in_pieces_gives_the_same_bits() -> None:
    """Prompts too: no kernel begins at some number of rows."""
    pair, tokens = PAIRS["qwen2"], random_tokens(330, 11)
    denoiser = Denoiser(pair.native, DiffusionConfig(prompt_format="plain/1"))
    found = []
    for step in (330, 256, 96, 7):
        cache = pair.cache(pair.native)
        for start in range(0, 330, step):
            hidden = denoiser.evaluate(cache, tokens[start : start + step])
            cache.commit(len(hidden))
        found.append(hidden[-1])
    assert all(torch.equal(each, found[0]) for each in found)


def test_a_copy_of_a_model_outlives_it() -> None:
    model = tiny_transformer("qwen2", **dict(wide_config("qwen2").__dict__)).bfloat16()
    model.pack(quantize=Quantization.INT8)
    copied = copy.deepcopy(model)
    expected = forward(model, KVCache(model.config, capacity=8, dtype=torch.bfloat16), random_tokens(8, 1), causal(8))
    del model
    gc.collect()
    cache = KVCache(copied.config, capacity=8, dtype=torch.bfloat16)
    assert torch.equal(forward(copied, cache, random_tokens(8, 1), causal(8)), expected)


def test_one_forward_at_a_time() -> None:
    pair = PAIRS["qwen2"]
    expected = [forward(pair.native, pair.cache(pair.native), random_tokens(9, seed), causal(9)) for seed in range(3)]
    wrong: list[int] = []

    def repeat(seed: int) -> None:
        with torch.inference_mode():
            for _ in range(20):
                found = forward(pair.native, pair.cache(pair.native), random_tokens(9, seed), causal(9))
                if not torch.equal(found, expected[seed]):
                    wrong.append(seed)

    threads = [threading.Thread(target=repeat, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"head_dim": 16}, "32 channels"), ({"hidden_size": 72, "num_heads": 2}, "hidden states"), ({}, "")],
)
def test_shapes_that_do_not_fit_run_in_torch(changes: dict[str, object], why: str) -> None:
    model = tiny_transformer("qwen2", **(dict(wide_config("qwen2").__dict__) | changes)).bfloat16()
    model.pack(quantize=Quantization.INT8)
    assert why in why_not_native(model.config, list(model.layers))
    assert (model.native is None) is bool(why)
    found = forward(model, KVCache(model.config, capacity=8, dtype=torch.bfloat16), random_tokens(8, 1), causal(8))
    assert bool(found.isfinite().all())
