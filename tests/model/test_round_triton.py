"""The fused steps of a round against the reference: on a GPU as they are, elsewhere through Triton's interpreter.

Triton comes with torch's CUDA builds only; without it these tests are skipped. To run them on a CPU:
``pip install --no-deps --target FOLDER triton`` and ``PYTHONPATH=FOLDER``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers.tiny_models import tiny_adapter, tiny_config

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.captured import CapturedForward
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.joined import join_products
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.masks import causal, causal_context
from diffusion_core.model.round_inputs import RoundInputs
from diffusion_core.model.round_ops import PlainOps, RoundOps, RoundState
from diffusion_core.model.transformer import Transformer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined, Triton's own too
pytest.importorskip("triton")

from diffusion_core.model.round_triton import TritonOps, supports  # noqa: E402

# The interpreter has no matrix product in bfloat16.
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, HALF: {"rtol": 2e-2, "atol": 2e-2}}


def shape_of(num_heads: int = 14, num_kv_heads: int = 2, head_dim: int = 64, **changes: object) -> ModelConfig:
    shape = {"hidden_size": 96, "intermediate_size": 160, "num_heads": num_heads, "num_kv_heads": num_kv_heads}
    return tiny_config(**(shape | {"head_dim": head_dim} | changes))


def random_model(config: ModelConfig, dtype: torch.dtype) -> Transformer:
    torch.manual_seed(1)
    return Transformer(config).to(DEVICE, dtype).eval().requires_grad_(False)


def inputs_of(num_rows: int, num_real: int, start: int) -> RoundInputs:
    inputs = RoundInputs(num_rows, torch.device(DEVICE))
    inputs.fill(start, [5] * num_real, list(range(start, start + num_real)), causal(num_real), None)
    return inputs


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("size", [96, 896, 1536])
def test_norm(dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(0)
    norm = Transformer(tiny_config(hidden_size=size)).norm.to(DEVICE, dtype)
    norm.weight.data += 0.1 * torch.randn_like(norm.weight)
    x, delta = (torch.randn(5, size, device=DEVICE, dtype=dtype) for _ in range(2))
    torch.testing.assert_close(TritonOps().norm(x, norm), PlainOps().norm(x, norm), **TOLERANCE[dtype])
    state = RoundState(inputs_of(5, 5, 0), (x, x))
    results = (ops.add_norm(x, delta, norm, state) for ops in (TritonOps(), PlainOps()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_gate(dtype: torch.dtype) -> None:
    gate_up = 3 * torch.randn(4, 2 * 1500, device=DEVICE, dtype=dtype)
    state = RoundState(inputs_of(4, 4, 0), (gate_up, gate_up))
    torch.testing.assert_close(TritonOps().gate(gate_up, state), PlainOps().gate(gate_up, state), **TOLERANCE[dtype])


def outputs_of(
    ops: RoundOps, model: Transformer, adapter: GatedAdapter | None, inputs: RoundInputs, x: torch.Tensor
) -> list[torch.Tensor]:
    """What the steps behind each of a layer's four products make of that product, slots and all."""
    layer = model.layers[1]
    attention, mlp, dtype = layer.attention, layer.mlp, x.dtype
    torch.manual_seed(7)
    memory = torch.randn(2, attention.num_kv_heads, 256, attention.head_dim, device=DEVICE, dtype=dtype)
    angles = torch.randn(len(x), attention.head_dim // 2, device=DEVICE).repeat(1, 2)
    state = ops.begin(inputs, (angles.cos().to(dtype), angles.sin().to(dtype)), 256)
    wide = torch.randn(len(x), mlp.down_proj.in_features, device=DEVICE, dtype=dtype)
    mixed = torch.randn(len(x), attention.o_proj.in_features, device=DEVICE, dtype=dtype)
    qkv, change = ops.product(attention.qkv_proj, x, adapter, state)
    found = [ops.store_rows(qkv, attention, (memory[0], memory[1]), state, change).flatten(1)]
    rows = slice(7, 7 + len(x))
    found += [memory[half, :, rows].transpose(0, 1).flatten(1) for half in (0, 1)]
    y, change = ops.product(attention.o_proj, mixed, adapter, state)
    found += ops.add_norm(x, y, layer.mlp_norm, state, change)
    gate_up, change = ops.product(mlp.gate_up_proj, x, adapter, state)
    found.append(ops.gate(gate_up, state, change))
    y, change = ops.product(mlp.down_proj, wide, adapter, state)
    return [*found, *ops.add_norm(x, y, model.norm, state, change)]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("rank", [4, 20, 32])
@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "qkv_bias": False}])
def test_the_adapter_changes_slot_rows_and_no_other_bit(
    dtype: torch.dtype, rank: int, joins: bool, changes: dict[str, object]
) -> None:
    model = random_model(shape_of(4, 2, 16, **changes), dtype)
    adapter = GatedAdapter(model.config, rank=rank, alpha=2.0 * rank)
    adapter.randomise(torch.Generator().manual_seed(3), scale=0.1)
    adapter = adapter.to(DEVICE, dtype).requires_grad_(False)
    inputs = RoundInputs(32, torch.device(DEVICE))
    inputs.fill(7, [5] * 25, list(range(7, 32)), causal(25), 17)
    x = torch.randn(32, model.config.hidden_size, device=DEVICE, dtype=dtype)
    expected = outputs_of(PlainOps(), model, adapter, inputs, x)
    ops = TritonOps(join_products(model, adapter) if joins else None)
    found = outputs_of(ops, model, adapter, inputs, x)
    # The same kernels where no row is a slot: compiled without the change, they may sum in another order.
    inputs.fill(7, [5] * 25, list(range(7, 32)), causal(25), None)
    without = outputs_of(ops, model, adapter, inputs, x)
    for a, b, untouched in zip(found, expected, without, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE[dtype])
        assert torch.equal(a[:17], untouched[:17])
        assert torch.equal(a[25:], untouched[25:])
        assert not torch.allclose(a[17:25], untouched[17:25], **TOLERANCE[dtype])
    for a, b in zip(without, outputs_of(PlainOps(), model, None, inputs, x), strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE[dtype])


def test_rounds_without_slots_run_the_kernels_of_those_with_slots() -> None:
    model = random_model(shape_of(4, 2, 16), torch.float32)
    adapter = tiny_adapter(model.config, mask_token_id=271).to(DEVICE)
    captured = CapturedForward(model, adapter, max_positions=200, ops=TritonOps(join_products(model, adapter)))
    cache = KVCache(model.config, capacity=120, dtype=torch.float32, device=DEVICE)
    ids, positions, visible = [3, 4, 271, 271], [0, 1, 2, 3], causal_context(2, (2,), (2,))
    with_slots = captured.evaluate(cache, ids, positions, visible, 2).hidden.clone()
    without = captured.evaluate(cache, ids[:2], positions[:2], causal(2)).hidden
    assert torch.equal(without, with_slots[:2])
    assert captured.num_captured == 1


def test_joined_products_leave_the_model_as_it_is() -> None:
    model = random_model(shape_of(4, 2, 16), torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    joined = join_products(model, tiny_adapter(model.config, mask_token_id=271).to(DEVICE))
    assert len(joined) == 4 * model.config.num_layers
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    layer = model.layers[0].mlp.down_proj
    assert layer.weight.data_ptr() == joined[layer.name].weight.data_ptr(), "held twice"


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("start", "heads"), [(0, (4, 4, 16)), (125, (14, 2, 64)), (128, (4, 2, 16)), (300, (2, 1, 32))]
)
def test_storing_and_attending(dtype: torch.dtype, start: int, heads: tuple[int, int, int]) -> None:
    torch.manual_seed(2)
    H, K, size = heads
    attention = random_model(shape_of(H, K, size), dtype).layers[0].attention
    inputs = inputs_of(4, 3, start)
    qkv = torch.randn(4, (H + 2 * K) * size, device=DEVICE, dtype=dtype)
    angles = torch.randn(4, size // 2, device=DEVICE).repeat(1, 2)
    rotary = angles.cos().to(dtype), angles.sin().to(dtype)
    results = []
    for ops in (PlainOps(), TritonOps()):
        torch.manual_seed(3)
        memory = torch.randn(2, K, 384, size, device=DEVICE, dtype=dtype)
        state = ops.begin(inputs, rotary, 384)
        queries = ops.store_rows(qkv, attention, (memory[0], memory[1]), state)
        results.append((queries, memory, ops.attend(queries, (memory[0], memory[1]), state)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE[dtype])
    # Keys are rotated, in which a GPU may round otherwise; values and all other places are copied or left alone.
    (_, one, _), (_, other, _) = results
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[0, :, :start], other[0, :, :start])
    assert torch.equal(one[0, :, start + 4 :], other[0, :, start + 4 :])


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "qkv_bias": False}])
def test_a_whole_round(changes: dict[str, object]) -> None:
    model = random_model(shape_of(4, 2, 16, **changes), torch.float32)
    adapter = tiny_adapter(model.config, mask_token_id=271).to(DEVICE)
    found = []
    for ops in (PlainOps(), TritonOps()):
        captured = CapturedForward(model, adapter, max_positions=300, exact=False, ops=ops)
        cache = KVCache(model.config, capacity=200, dtype=torch.float32, device=DEVICE)
        rows = []
        with torch.inference_mode():
            model(torch.arange(120)[None].to(DEVICE), torch.arange(120)[None].to(DEVICE), causal(120), cache=cache)
            cache.commit(120)
            for start in (120, 127):
                ids = positions = list(range(start, start + 7))
                rows.append(captured.evaluate(cache, ids, positions, causal(7)).hidden.clone())
                cache.commit(7)
            positions = [134, 135, 135, 136, 136, 137]
            visible = causal_context(2, (2, 2), (1, 2))
            rows.append(captured.evaluate(cache, [3, 4, *[271] * 4], positions, visible, 2).hidden.clone())
        assert type(captured._ops) is type(ops), "the check refused the fused steps"
        found.append(torch.cat(rows))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


def test_a_row_has_the_same_bits_in_any_company_and_any_memory() -> None:
    torch.manual_seed(4)
    H, K, size = 14, 2, 64
    queries = torch.randn(8, H, size, device=DEVICE)
    memory = torch.randn(2, K, 512, size, device=DEVICE)
    together, start = inputs_of(8, 8, 252), 252
    ops, none = TritonOps(), (queries, queries)
    whole = ops.attend(queries, (memory[0], memory[1]), ops.begin(together, none, 512))
    for row in (0, 3, 4, 7):
        alone = inputs_of(2, 1, start + row)
        short = memory[:, :, :384]
        found = ops.attend(queries[row : row + 1].repeat(2, 1, 1), (short[0], short[1]), ops.begin(alone, none, 384))
        assert torch.equal(found[0], whole[row])


def test_shapes_that_the_kernels_cannot_work_with_are_known() -> None:
    assert supports(shape_of())
    assert not supports(shape_of(head_dim=80))
    assert not supports(shape_of(head_dim=8))
    assert not supports(shape_of(num_heads=34, num_kv_heads=2))


def test_products_in_tiles_have_rows_of_their_own_bits() -> None:
    """The kernel that the GPU measurement sets against torch's own."""
    from bench.product_kernel import tiled_product

    torch.manual_seed(6)
    x, weight = torch.randn(40, 70, device=DEVICE), torch.randn(50, 70, device=DEVICE)
    product = tiled_product((16, 32, 4, 2))
    whole = product(x, weight)
    torch.testing.assert_close(whole, x @ weight.T, rtol=1e-4, atol=1e-4)
    for rows in (1, 15, 16, 17, 39):
        assert torch.equal(product(x[:rows].contiguous(), weight), whole[:rows])


def test_every_kernel_compiles_for_gpus_that_are_not_here() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "helpers.compile_kernels", "80", "90"],
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path]))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert len({line["kernel"] for line in lines}) == 6
    assert not any(line["spills"] for line in lines)
    # The products are only measured; of the others more programs than one should find room.
    assert max(line["shared"] for line in lines if line["kernel"] != "_product") <= 48 * 1024
