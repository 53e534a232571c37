"""A round of static shape computes what the ordinary forward computes, and leaves the cache as that one does.

Where there is a GPU the rounds are captured there.
"""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import SHAPES, tiny_adapter, tiny_config, tiny_transformer

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.captured import EXACT_ROWS, FEWER_ROWS, MAX_CAPTURED, ROW_BUCKETS, CapturedForward
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.layers import AdaptableLinear
from diffusion_core.model.masks import causal, causal_context
from diffusion_core.model.round_ops import Change, PlainOps, RoundState
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser

# Another number of keys in one attention call sums in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
MAX_POSITIONS = 1500
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def prefilled(model: Transformer, num_tokens: int, capacity: int = 0, seed: int = 0) -> KVCache:
    """A cache with ``num_tokens`` committed positions, by the ordinary forward."""
    cache = KVCache(model.config, capacity=max(capacity, num_tokens), dtype=model.dtype, device=DEVICE)
    tokens = torch.randint(0, 250, (1, num_tokens), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        model(tokens.to(DEVICE), torch.arange(num_tokens, device=DEVICE)[None], causal(num_tokens), cache=cache)
    cache.commit(num_tokens)
    return cache


def reference(
    model: Transformer,
    cache: KVCache,
    ids: list[int],
    positions: list[int],
    visible: torch.Tensor,
    adapter: GatedAdapter | None = None,
    first_slot: int | None = None,
) -> torch.Tensor:
    with torch.inference_mode():
        rows, places = torch.tensor([ids], device=DEVICE), torch.tensor([positions], device=DEVICE)
        return model(rows, places, visible, cache=cache, adapter=adapter, first_slot=first_slot)[0]


def assert_same_cache(a: KVCache, b: KVCache) -> None:
    assert a.length == b.length
    for layer in range(2):
        for left, right in zip(a.committed(layer), b.committed(layer), strict=True):
            torch.testing.assert_close(left, right, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 8, 33, 64])
def test_a_round_equals_the_ordinary_forward(shape: str, exact: bool, num_rows: int) -> None:
    model = tiny_transformer(shape).to(DEVICE)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS, exact=exact)
    plain, cache = prefilled(model, 100), prefilled(model, 100)
    ids, positions = list(range(40, 40 + num_rows)), list(range(100, 100 + num_rows))
    expected = reference(model, plain, ids, positions, causal(num_rows))
    found = captured.evaluate(cache, ids, positions, causal(num_rows)).hidden
    torch.testing.assert_close(found, expected, **CLOSE)
    for held in (plain, cache):
        held.commit(num_rows)
    assert_same_cache(plain, cache)
    assert captured.rows_for(num_rows) == (EXACT_ROWS if exact else min(b for b in ROW_BUCKETS if b >= num_rows))


@pytest.mark.parametrize("group_sees", [(3,), (1, 2, 3), (1, 3)])
def test_slots_and_the_adapter_act_as_in_the_ordinary_forward(group_sees: tuple[int, ...]) -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    adapter = tiny_adapter(model.config, mask_token_id=271).to(DEVICE)
    captured = CapturedForward(model, adapter, max_positions=MAX_POSITIONS)
    plain, cache = prefilled(model, 60), prefilled(model, 60)
    size, clean = 4, [70, 71, 72]
    ids = clean + [271] * (size * len(group_sees))
    positions = [60, 61, 62] + [60 + sees + i for sees in group_sees for i in range(size)]
    visible = causal_context(3, (size,) * len(group_sees), group_sees)
    expected = reference(model, plain, ids, positions, visible, adapter, first_slot=3)
    found = captured.evaluate(cache, ids, positions, visible, first_slot=3).hidden
    torch.testing.assert_close(found, expected, **CLOSE)
    unadapted = captured.evaluate(cache, clean, positions[:3], causal(3)).hidden
    torch.testing.assert_close(unadapted, expected[:3], **CLOSE)
    assert not torch.allclose(found[3:], reference(model, plain, ids, positions, visible)[3:], **CLOSE)


def test_rows_of_an_exact_round_are_the_same_bits_in_any_company_and_at_any_place() -> None:
    torch.manual_seed(5)
    config = tiny_config(hidden_size=256, intermediate_size=512, num_layers=3, num_heads=8, head_dim=32)
    model = Transformer(config).to(DEVICE, torch.bfloat16).eval().requires_grad_(False)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS)
    tokens = torch.randint(0, 250, (30,)).tolist()
    captured.prepare()
    together_cache = prefilled(model, 500, capacity=600)
    together = captured.evaluate(together_cache, tokens, list(range(500, 530)), causal(30)).hidden.clone()
    cache, rows = prefilled(model, 500, capacity=600), []
    for offset, token in enumerate(tokens):
        rows.append(captured.evaluate(cache, [token], [500 + offset], causal(1)).hidden.clone())
        cache.commit(1)
    assert torch.equal(together, torch.cat(rows))


def test_rejected_rows_leave_no_trace() -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS)
    plain, cache = prefilled(model, 50), prefilled(model, 50)
    captured.evaluate(cache, [1, 2, 3, 4, 5], [50, 51, 52, 53, 54], causal(5))
    cache.commit(2)
    captured.evaluate(cache, [9] * 30, list(range(52, 82)), causal(30))
    found = captured.evaluate(cache, [7, 8], [52, 53], causal(2)).hidden
    cache.commit(2)
    expected = reference(model, plain, [1, 2, 7, 8], [50, 51, 52, 53], causal(4))
    plain.commit(4)
    torch.testing.assert_close(found, expected[2:], **CLOSE)
    assert_same_cache(plain, cache)


def test_a_sequence_grows_from_bucket_to_bucket() -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS)
    plain, cache = prefilled(model, 440), prefilled(model, 440)
    assert cache.capacity == 512
    capacities = set()
    for start in range(440, 1400, 60):
        ids, positions = [start % 250] * 60, list(range(start, start + 60))
        expected = reference(model, plain, ids, positions, causal(60))
        found = captured.evaluate(cache, ids, positions, causal(60)).hidden
        torch.testing.assert_close(found, expected, **CLOSE)
        plain.commit(60)
        cache.commit(60)
        capacities.add(cache.capacity)
    assert_same_cache(plain, cache)
    assert capacities == set(captured.capacities)
    assert not captured.fits(cache, 2) or cache.length + EXACT_ROWS <= captured.capacities[-1]


def test_sequences_take_turns_and_mix_with_ordinary_forwards() -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS)
    lengths = (30, 90, 300)
    plains = [prefilled(model, n, seed=n) for n in lengths]
    caches = [prefilled(model, n, seed=n) for n in lengths]
    for turn in range(6):
        for plain, cache in zip(plains, caches, strict=True):
            start = plain.length
            rows = 100 if turn == 3 else 2 + turn  # a hundred rows are no round: the ordinary forward takes them
            ids, positions = [(start + i) % 250 for i in range(rows)], list(range(start, start + rows))
            expected = reference(model, plain, ids, positions, causal(rows))
            if captured.fits(cache, rows):
                found = captured.evaluate(cache, ids, positions, causal(rows)).hidden
            else:
                found = reference(model, cache, ids, positions, causal(rows))
            torch.testing.assert_close(found, expected, **CLOSE)
            for held in (plain, cache):
                held.commit(rows - turn % 2)
    for plain, cache in zip(plains, caches, strict=True):
        assert_same_cache(plain, cache)
        assert_same_cache(plain.copy(20, 20), cache.copy(20, 20))
    # A cache that lives elsewhere is counted as what it takes by itself.
    for plain, cache in zip(plains, caches, strict=True):
        assert cache.length * plain.num_bytes // plain.capacity <= cache.num_bytes <= plain.num_bytes


def test_the_taps_of_a_draft_head_are_those_of_the_ordinary_forward() -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    taps = (0, 1, 2)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS, taps=taps)
    plain, cache = prefilled(model, 20), prefilled(model, 20)
    expected: list[torch.Tensor] = []
    ids, positions = [4, 5, 6], [20, 21, 22]
    with torch.inference_mode():
        rows, places = torch.tensor([ids], device=DEVICE), torch.tensor([positions], device=DEVICE)
        model(rows, places, causal(3), cache=plain, taps=taps, tapped=expected)
    found = captured.evaluate(cache, ids, positions, causal(3)).tapped
    assert len(found) == len(expected) == 3
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right[0], **CLOSE)


def test_memory_is_bounded_and_counted() -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    captured = CapturedForward(
        model, tiny_adapter(model.config, mask_token_id=271).to(DEVICE), max_positions=MAX_POSITIONS, exact=False
    )
    assert captured.num_bytes == 0
    config = model.config
    keys_and_values = 2 * config.num_layers * config.num_kv_heads * captured.capacities[-1] * config.head_dim * 4
    for capacity in (400, 900, 1400):
        for rows in ROW_BUCKETS:
            for first_slot, chooses in ((None, False), (0, False), (0, True)):
                cache = prefilled(model, 10, capacity=capacity)
                positions = list(range(10, 10 + rows))
                captured.evaluate(cache, [1] * rows, positions, causal(rows), first_slot, chooses=chooses)
    assert captured.num_captured == MAX_CAPTURED
    assert captured.num_bytes > keys_and_values
    if DEVICE == "cpu":  # a captured round takes memory of its own
        assert captured.num_bytes < keys_and_values + 8 * 2 * EXACT_ROWS * (EXACT_ROWS + 8)


def test_logits_of_a_round_have_one_shape_whatever_is_asked_for() -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS)
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"), captured=captured)
    hidden = denoiser.evaluate(prefilled(model, 30), [1, 2, 3, 4, 5])
    whole = denoiser.logits(hidden)
    torch.testing.assert_close(whole, model.logits(hidden), **CLOSE)
    for start in range(5):
        assert torch.equal(denoiser.logits(hidden[start:]), whole[start:])


@pytest.mark.parametrize("num_rows", [1, 5, 64])
def test_a_round_takes_the_best_token_of_each_row_itself(num_rows: int) -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    captured = CapturedForward(model, tiny_adapter(model.config, mask_token_id=271).to(DEVICE), max_positions=300)
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"), captured=captured)
    ids, first_slot, best = [271] * num_rows, num_rows // 2, list[int]()
    hidden = denoiser.evaluate(prefilled(model, 30), ids, first_slot=first_slot, best=best)
    assert best == denoiser.logits(hidden).argmax(-1).tolist()
    assert len(best) == num_rows
    untold = denoiser.evaluate(prefilled(model, 30), ids, first_slot=first_slot)
    torch.testing.assert_close(untold, hidden, **CLOSE)


def test_fewer_rows_are_used_only_where_they_have_the_bits_of_more() -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    adapter = tiny_adapter(model.config, mask_token_id=271).to(DEVICE)

    even = CapturedForward(model, adapter, max_positions=300, ops=RowByRow())
    even.prepare()
    # On a GPU it is the output head that may have other bits.
    assert even.row_buckets == (*FEWER_ROWS, EXACT_ROWS) or DEVICE == "cuda"
    prepared = even.row_buckets, even.num_captured
    even.prepare()
    assert (even.row_buckets, even.num_captured) == prepared, "what is there is not made again"
    uneven = CapturedForward(model, adapter, max_positions=300, ops=UnevenRows())
    uneven.prepare()
    assert uneven.row_buckets == (EXACT_ROWS,)


@pytest.mark.parametrize("has_adapter", [False, True])
def test_what_is_prepared_is_what_requests_need(has_adapter: bool) -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    adapter = tiny_adapter(model.config, mask_token_id=271).to(DEVICE) if has_adapter else None
    captured = CapturedForward(model, adapter, max_positions=MAX_POSITIONS)
    captured.prepare()
    kinds = len(captured.row_buckets) * (2 if has_adapter else 1)
    assert len(captured.capacities) * kinds <= captured.num_captured <= (len(captured.capacities) + 1) * kinds
    prepared = captured.num_captured, captured.num_bytes
    for num_tokens, capacity in ((10, 300), (200, 900), (700, 1500)):
        plain, cache = prefilled(model, num_tokens), prefilled(model, num_tokens, capacity=capacity)
        positions = [num_tokens, num_tokens + 1]
        expected = reference(model, plain, [5, 271], positions, causal(2), adapter, 1)
        found = captured.evaluate(cache, [5, 271], positions, causal(2), 1, chooses=True).hidden
        torch.testing.assert_close(found, expected, **CLOSE)
    assert (captured.num_captured, captured.num_bytes) == prepared


class RowByRow(PlainOps):
    """Products whose rows cannot depend on how many there are."""

    def product(
        self, linear: AdaptableLinear, x: torch.Tensor, adapter: GatedAdapter | None, state: RoundState
    ) -> tuple[torch.Tensor, None]:
        y = torch.cat([linear(row[None].expand(2, -1))[:1] for row in x])
        if adapter is None:
            return y, None
        added = torch.cat([adapter.add_delta(linear.name, a[None], b[None]) for a, b in zip(x, y, strict=True)])
        return torch.where((state.inputs.is_slot == 1).unsqueeze(1), added, y), None


class UnevenRows(RowByRow):
    """A device whose kernel for fewer rows rounds otherwise."""

    def gate(self, gate_up: torch.Tensor, state: RoundState, change: Change | None = None) -> torch.Tensor:
        return super().gate(gate_up, state, change) * (1 + 1e-6 * (len(gate_up) < EXACT_ROWS))


class WrongGate(PlainOps):
    """Fused steps of a compiler that makes mistakes."""

    def gate(self, gate_up: torch.Tensor, state: RoundState, change: Change | None = None) -> torch.Tensor:
        return 2 * super().gate(gate_up, state, change)


class FailingGate(PlainOps):
    """Fused steps that cannot be compiled."""

    def gate(self, gate_up: torch.Tensor, state: RoundState, change: Change | None = None) -> torch.Tensor:
        raise RuntimeError("no such instruction")


class SlightlyOtherGate(PlainOps):
    """Fused steps that round otherwise."""

    def gate(self, gate_up: torch.Tensor, state: RoundState, change: Change | None = None) -> torch.Tensor:
        return super().gate(gate_up, state, change) * (1 + 1e-6)


@pytest.mark.parametrize(("ops", "is_kept"), [(WrongGate, False), (FailingGate, False), (SlightlyOtherGate, True)])
def test_fused_steps_that_do_not_give_what_the_reference_gives_are_left_out(
    ops: type[PlainOps], is_kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_transformer("qwen2").to(DEVICE)
    captured = CapturedForward(model, max_positions=MAX_POSITIONS, ops=ops())
    plain, cache = prefilled(model, 40), prefilled(model, 40)
    expected = reference(model, plain, [1, 2, 3], [40, 41, 42], causal(3))
    for _ in range(2):
        found = captured.evaluate(cache, [1, 2, 3], [40, 41, 42], causal(3)).hidden
        torch.testing.assert_close(found, expected, **CLOSE)
    assert ("goes on without" in caplog.text) == (not is_kept)
