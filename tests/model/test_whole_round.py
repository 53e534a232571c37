"""The round as one kernel against the ordinary forward, alone and with rows of several sequences.

Without a GPU its source runs on the CPU, thread by thread: `helpers/cuda_on_cpu.h` has the warps, barriers and matrix
instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from helpers.whole_rounds import DEVICE, config_of, device_with, random_adapter, random_model, shapes_of, whole_forward

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import causal, causal_context
from diffusion_core.model.together import SequenceRows
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_forward import WholeForward
from diffusion_core.model.whole_inputs import WholeInputs
from diffusion_core.model.whole_round import WholeRound, pack_tiles

MASK = 272  # behind the vocabulary
OFFSETS = (0, 1, 2, 3, 2, 3, 4, 4, 5, 6)  # of four clean rows, and of slots behind two and behind four of them


def cache_of(model: Transformer, length: int, seed: int = 2) -> KVCache:
    """``length`` random committed positions; what is behind them differs from cache to cache."""
    cache = KVCache(model.config, capacity=length + 70, dtype=torch.bfloat16, device=DEVICE)
    noise = torch.randn(cache.memory[:, :, :, :length].shape, generator=torch.Generator().manual_seed(seed))
    cache.memory[:, :, :, :length] = noise.to(DEVICE, torch.bfloat16)
    cache.memory[:, :, :, length:] = 0.1 * seed
    cache.length = length
    return cache


def clean_rows(cache: KVCache, count: int, first: int = 3) -> SequenceRows:
    start = cache.length
    return SequenceRows(cache, [first + i for i in range(count)], range(start, start + count), causal(count), count)


def rows_with_slots(cache: KVCache, first: int = 3) -> SequenceRows:
    ids = [first, first + 1, first + 2, first + 3] + [MASK] * 6
    positions = [cache.length + offset for offset in OFFSETS]
    return SequenceRows(cache, ids, positions, causal_context(4, (3, 3), (2, 4)), 4)


def ordinary(model: Transformer, adapter: GatedAdapter | None, rows: SequenceRows) -> torch.Tensor:
    num_rows = len(rows.tokens)
    with torch.inference_mode():
        return model(
            torch.tensor([rows.tokens], device=DEVICE), torch.tensor([list(rows.positions)], device=DEVICE),
            rows.visible, cache=rows.cache, adapter=adapter if rows.num_clean < num_rows else None,
            first_slot=rows.num_clean if rows.num_clean < num_rows else None,
        )[0]  # fmt: skip


def share_off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def evaluate(whole: WholeForward, *sequences: SequenceRows) -> tuple[torch.Tensor, list[int]]:
    with torch.inference_mode():
        outputs = whole.evaluate_together(sequences, chooses=True)
        whole.wait()
        assert outputs.best is not None
        return outputs.hidden.clone(), outputs.best.tolist()[: len(outputs.hidden)]


def unpack_rows(rows: torch.Tensor, num_rows: int, num_values: int) -> torch.Tensor:
    """What `packed` of shape.cuh lays out, as [R, values]."""
    laid = rows.view(num_values // 16, num_rows // 16, 8, 4, 2, 4)  # step, tile, g, t, half, value
    return laid.permute(1, 4, 2, 0, 3, 5).reshape(num_rows, num_values)


def test_tiles_and_rows_are_where_lanes_look() -> None:
    matrix = torch.arange(32 * 48).view(32, 48)
    tiles = pack_tiles(matrix)
    tile, step, g, t = 1, 2, 5, 3
    lane = tiles[tile, step, 4 * g + t].tolist()
    expected = [
        (tile * 16 + g + half * 8, step * 16 + 4 * t + 2 * pair + e)
        for pair in (0, 1) for half in (0, 1) for e in (0, 1)
    ]  # fmt: skip
    assert lane == [int(matrix[at]) for at in expected]
    laid = torch.empty(32 * 48, dtype=torch.long)
    for row in range(32):
        for value in range(48):
            place = ((value // 16 * 2 + row // 16) * 32 + row % 8 * 4 + value % 16 // 4) * 8 + row // 8 % 2 * 4
            laid[place + value % 4] = matrix[row, value]
    assert torch.equal(unpack_rows(laid, 32, 48), matrix)


def test_inputs_say_whose_rows_are_whose() -> None:
    model = random_model(config_of())
    caches = cache_of(model, 5), cache_of(model, 40)
    inputs = WholeInputs(16, 3, torch.device(DEVICE))
    inputs.fill([clean_rows(caches[1], 16)])
    inputs.send_ahead()
    inputs.fill([rows_with_slots(caches[0]), clean_rows(caches[1], 2, first=50)])
    inputs.send()
    ids, positions, starts, memories, capacities, is_slot, places, among, firsts, ends = (
        inputs.held[:-1].view(10, 16).tolist()
    )  # fmt: skip
    assert ids == [3, 4, 5, 6, *[MASK] * 6, 50, 51, 0, 0, 0, 0]
    assert positions[:12] == [*(5 + offset for offset in OFFSETS), 40, 41]
    assert is_slot == [0] * 4 + [1] * 6 + [0] * 6
    assert starts == [5] * 10 + [40] * 2 + [-1] * 4
    assert places[:12] == [*range(10), 0, 1]
    assert memories[:12] == [caches[0].memory.data_ptr()] * 10 + [caches[1].memory.data_ptr()] * 2
    assert capacities[:12] == [caches[0].capacity] * 10 + [caches[1].capacity] * 2
    assert [bin(bits) for bits in among[:5]] == ["0b1", "0b11", "0b111", "0b1111", "0b1110011"]
    assert among[10:12] == [1, 3]
    num_tiles = int(inputs.held[-1])
    assert list(zip(firsts, ends, strict=True))[:num_tiles] == [(0, 30), (16, 30), (30, 36)]


@pytest.mark.parametrize(
    ("rank", "changes", "cut"),
    [
        (0, {}, {}),
        (16, {}, {"slices": 2}),
        (20, {"qkv_bias": False}, {"blocks": 5, "slices": 4, "tiles_together": 1}),
        (32, {"head_dim": 128, "num_heads": 4}, {"blocks": 2, "slices": 2, "tiles_together": 3}),
    ],
)
def test_a_round_is_the_ordinary_forward(rank: int, changes: dict[str, object], cut: dict[str, int]) -> None:
    model = random_model(config_of(**changes))
    adapter = random_adapter(model.config, rank) if rank else None
    whole = whole_forward(model, adapter, **cut)
    for count, length in ((10, 0), (20, 130), (40, 37), (10, 200)):
        ours, theirs = cache_of(model, length), cache_of(model, length)
        has_slots = adapter is not None and count == 10
        pair = [rows_with_slots(cache) if has_slots else clean_rows(cache, count) for cache in (ours, theirs)]
        found, best = evaluate(whole, pair[0])
        assert share_off(found, ordinary(model, adapter, pair[1])) < 0.02, (count, length)
        assert best == model.scores(found).max(-1).indices.tolist()
        own = slice(length, length + count)
        assert torch.equal(ours.memory[:, :, :, :length], theirs.memory[:, :, :, :length])
        assert torch.equal(ours.memory[:, :, :, length + count :], theirs.memory[:, :, :, length + count :])
        assert share_off(ours.memory[:, :, :, own], theirs.memory[:, :, :, own]) < 0.02


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 896, "intermediate_size": 4864, "num_heads": 14},
        {"hidden_size": 1536, "intermediate_size": 8960, "num_heads": 12, "head_dim": 128},
    ],
    ids=["0.5B", "1.5B"],
)
def test_a_layer_of_real_size(shape: dict[str, object]) -> None:
    """Cut as for a GPU with fewer multiprocessors than there are: the stacks of all threads have to be mapped."""
    model = random_model(config_of(num_layers=1, **shape))
    adapter = random_adapter(model.config, 32)
    whole = whole_forward(model, adapter, blocks=40)
    ours, theirs = cache_of(model, 400), cache_of(model, 400)
    expected = ordinary(model, adapter, rows_with_slots(theirs))
    found, best = evaluate(whole, rows_with_slots(ours))
    assert share_off(found, expected) < 0.03
    assert best == model.scores(found).max(-1).indices.tolist()
    assert share_off(ours.memory, theirs.memory) < 0.02


# Sixteen seeds in a row try every kind of order that the emulator has.
@pytest.mark.parametrize("seed", range(1 if DEVICE == "cuda" else 16))
def test_rows_have_the_same_bits_in_any_company(seed: int) -> None:
    """Rows of one sequence one by one, with slots beside them, and among other sequences' rows and slots."""
    model = random_model(config_of())
    whole = whole_forward(model, random_adapter(model.config, 16), blocks=4, seed=seed, slices=2)
    together, alone, other = cache_of(model, 250), cache_of(model, 250), cache_of(model, 90, seed=5)
    rows = clean_rows(together, 8)
    expected, tokens = evaluate(whole, rows)
    slots, _ = evaluate(whole, rows_with_slots(other))
    for number, token in enumerate(rows.tokens):
        own = clean_rows(alone, 1, first=token)
        company: Sequence[SequenceRows] = [[], [rows_with_slots(other)], [clean_rows(other, 30)]][number % 3]
        before = number % 2 == 0
        found, best = evaluate(whole, *([*company, own] if before else [own, *company]))
        at = len(found) - 1 if before else 0
        assert torch.equal(found[at], expected[number]), number
        assert best[at] == tokens[number]
        if number % 3 == 1:
            assert torch.equal(found[:10] if before else found[1:], slots), "slots are as they are alone"
        alone.commit(1)
    assert torch.equal(alone.memory[:, :, :, :258], together.memory[:, :, :, :258])


def test_many_sequences_share_a_round() -> None:
    model = random_model(config_of())
    whole = whole_forward(model, None, blocks=2)
    lengths = [1 + 13 * number % 150 for number in range(50)]
    caches = [cache_of(model, length, seed=number) for number, length in enumerate(lengths)]
    found, best = evaluate(whole, *(clean_rows(cache, 1, first=number) for number, cache in enumerate(caches)))
    for number in range(0, 50, 7):
        again = cache_of(model, lengths[number], seed=number)
        alone, token = evaluate(whole, clean_rows(again, 1, first=number))
        assert torch.equal(found[number], alone[0])
        assert [best[number]] == token
        assert torch.equal(caches[number].memory, again.memory)


def test_what_is_compared_before_it_is_used() -> None:
    model = random_model(config_of())
    adapter = random_adapter(model.config, 16)
    whole = whole_forward(model, adapter)
    assert whole.agrees()
    whole.prepare()
    prepared = whole.num_captured, whole.num_bytes
    assert prepared[0] == 6, "each number of rows, with the best tokens and without"
    for count in (1, 20, 40):
        evaluate(whole, clean_rows(cache_of(model, 30), count))
    assert (whole.num_captured, whole.num_bytes) == prepared
    wrong = whole_forward(model, adapter)
    model.layers[1].mlp.down_proj.weight.data *= -1
    assert not wrong.agrees()


def test_a_timed_block_notes_its_steps_one_after_the_other() -> None:
    model = random_model(config_of())
    cut = {"timed_block": 1}
    shapes = {rows: replace(shape, **cut) for rows, shape in shapes_of(model, 0, blocks=2).items()}
    whole = WholeRound(model, None, max_positions=512, shapes=shapes, build=device_with(0))
    inputs = WholeInputs(16, 3, torch.device(DEVICE))
    inputs.fill([clean_rows(cache_of(model, 9), 3)])
    inputs.send()
    whole.run(inputs)
    clocks = [clock for step in whole.clocks(16)[1:-1] for clock in step]
    assert len(clocks) == 4 * 5 * model.config.num_layers
    assert clocks[0] > 0
    assert clocks == sorted(clocks)
