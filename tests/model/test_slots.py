"""Slots and gating: what rides along in a forward never touches the clean rows."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import SHAPES, VOCAB_SIZE, tiny_adapter, tiny_transformer

from diffusion_core.errors import CheckpointError
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.kv_cache import KVCache, with_cache
from diffusion_core.model.masks import block_causal, causal, causal_context


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_adapted", [False, True])
def test_slots_never_change_clean_rows_nor_their_cache(shape: str, is_adapted: bool) -> None:
    model = tiny_transformer(shape)
    adapter = tiny_adapter(model.config) if is_adapted else None
    mask_id = adapter.mask_token_id if adapter else VOCAB_SIZE - 1
    clean = torch.randint(0, 256, (1, 5), generator=torch.Generator().manual_seed(6))
    prompt = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(7))
    results = []
    for num_slots in (0, 1, 4, 16):
        cache = KVCache(model.config, capacity=128, dtype=model.dtype)
        with torch.inference_mode():
            model(prompt, torch.arange(40)[None], causal(40), cache=cache)
            cache.commit(40)
            ids = torch.cat((clean, torch.full((1, num_slots), mask_id)), dim=1)
            places = torch.arange(40, 45 + num_slots)[None]
            visible = causal_context(5, (num_slots,), (5,))
            hidden = model(ids, places, visible, cache=cache, adapter=adapter, first_slot=5)
            cache.commit(5)
        results.append((hidden[:, :5], *cache.committed(0), *cache.committed(1)))
    # The float32 kernels sum in another order for another number of rows: equal up to rounding, no more.
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=2e-5, rtol=1e-5)


def test_what_the_slots_hold_never_reaches_a_clean_row() -> None:
    model = tiny_transformer()
    ids = torch.randint(0, 256, (1, 9), generator=torch.Generator().manual_seed(8))
    visible, places = causal_context(5, (4,), (5,)), torch.arange(9)[None]
    results = []
    for token, adapter in ((3, None), (200, None), (3, tiny_adapter(model.config)), (3, tiny_adapter(model.config, 5))):
        ids[:, 5:] = token
        cache = KVCache(model.config, capacity=128, dtype=model.dtype)
        with torch.inference_mode():
            hidden = model(ids, places, visible, cache=cache, adapter=adapter, first_slot=5)
        cache.commit(5)
        results.append((hidden[:, :5], *cache.committed(0), *cache.committed(1)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_adapter_acts_on_slots() -> None:
    model = tiny_transformer()
    adapter = tiny_adapter(model.config)
    ids = torch.full((1, 6), adapter.mask_token_id)
    ids[:, :2] = 7
    visible = causal_context(2, (4,), (2,))
    with torch.inference_mode():
        gated = model(ids, torch.arange(6)[None], visible, adapter=adapter, first_slot=2)
        other = model(ids, torch.arange(6)[None], visible, adapter=tiny_adapter(model.config, seed=9), first_slot=2)
    assert torch.equal(gated[:, :2], other[:, :2])
    assert not torch.allclose(gated[:, 2:], other[:, 2:])


def test_masks_show_what_they_say() -> None:
    visible = causal_context(3, (2, 2), (1, 3))
    expected = [
        "1000000",
        "1100000",
        "1110000",
        "1001100",
        "1001100",
        "1110011",
        "1110011",
    ]
    assert ["".join("01"[int(v)] for v in row) for row in visible] == expected
    assert torch.equal(block_causal(torch.arange(9), 1), causal(9))
    grid = block_causal(torch.arange(2, 6), 4)  # positions 2 3 | 4 5
    assert grid.tolist() == [[True, True, False, False]] * 2 + [[True] * 4] * 2
    wide = with_cache(causal(2), 3)
    assert wide.shape == (2, 128)
    assert wide[0].nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_an_adapter_refuses_wrong_tensors() -> None:
    config = tiny_transformer().config
    tensors = tiny_adapter(config).named_tensors()
    name = "layers.1.mlp.down_proj.up"
    with pytest.raises(CheckpointError, match=f"{name} has shape"):
        GatedAdapter(config, rank=4, alpha=4.0).load_tensors(tensors | {name: torch.zeros(1, 1)})
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        GatedAdapter(config, rank=4, alpha=4.0).load_tensors({k: v for k, v in tensors.items() if k != name})
    with pytest.raises(CheckpointError, match=r"stray is not expected"):
        GatedAdapter(config, rank=4, alpha=4.0).load_tensors(tensors | {"stray": torch.zeros(1)})


def test_an_adapter_round_trips_its_tensors() -> None:
    config = tiny_transformer().config
    source = tiny_adapter(config)
    copy = GatedAdapter(config, rank=4, alpha=4.0)
    copy.load_tensors(source.named_tensors())
    assert all(torch.equal(copy.named_tensors()[k], v) for k, v in source.named_tensors().items())
